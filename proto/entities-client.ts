import { toWireValue } from "./client-batch.ts";
import { callStream, callUnary, type Dialled } from "./client-call.ts";
import type { ClientToken } from "./client-session.ts";
import {
  Entities,
  type RawDatapoint,
  type Token,
  type LinkedEntity as WireLinked,
  type Record as WireRecord,
} from "./gen/starling_pb.ts";

/** An attribute's newest value; `n` counts the datapoints that were ever applied to it. */
export interface AttributeValue {
  readonly v: unknown;
  readonly t1: number;
  readonly t2: number;
  readonly c: number;
  readonly n: number;
}

/** A master record. Times are Unix milliseconds. */
export interface EntityRecord {
  readonly type: string;
  readonly eid: string;
  readonly createdAt: number;
  readonly attributes: Readonly<Record<string, AttributeValue>>;
  readonly history: Readonly<Record<string, readonly HistoryEntry[]>>;
  readonly ttlTokens: Readonly<Record<string, number>>;
  readonly token: ClientToken | null;
  /** When asked for. */
  readonly at: RecordAt | null;
}

/** What was current at an instant. */
export interface RecordAt {
  readonly at: number;
  /** False: retention took what could change the answer. */
  readonly complete: boolean;
  readonly attributes: Readonly<Record<string, AttributeAt>>;
}

/** Plain attributes have no past: `present` says that the value is that of now. */
export type AttributeAt =
  | { readonly values: readonly ObservedValue[]; readonly complete: boolean; readonly present?: undefined }
  | { readonly values: readonly [{ readonly v: unknown; readonly t1: number }]; readonly present: true };

/** A value that was current; `c` is its confidence at that instant, `n` how many observations agree. */
export interface ObservedValue {
  readonly v: unknown;
  readonly c: number;
  readonly t1: number;
  readonly t2: number;
  readonly n: number;
}

/** A run of equal values; `c` is the mean of the confidences of its `n` datapoints. */
export interface HistoryEntry {
  readonly v: unknown;
  readonly t1: number;
  readonly t2: number;
  readonly c: number;
  readonly n: number;
}

export interface RawEntry {
  readonly type: string;
  readonly eid: string;
  readonly attr: string;
  readonly v: unknown;
  readonly t1: number | null;
  readonly t2: number | null;
  readonly c: number;
  readonly src: string | null;
  readonly shard: number;
  readonly seq: number;
  /** When it reached the log; and when that was asked, or null while following. Unix ms. */
  readonly at: number;
  readonly asOf: number | null;
}

/** Typed calls of the service Entities; each raises the StarlingError that the node sends. */
export interface EntitiesClient {
  /** NOT_FOUND if there is none; BEHIND if the owner has not reached the token yet. `at`: what was current then, too. */
  get(key: {
    type: string;
    eid: string;
    token?: ClientToken;
    historyLimit?: number;
    at?: number;
  }): Promise<EntityRecord>;
  list(query: { type: string; cursor?: string; limit?: number }): Promise<EntityPage>;
  /** Without a type: all types. */
  count(type?: string): Promise<{ readonly counts: Readonly<Record<string, number>>; readonly asOf: number }>;
  /** Newest first, 1,000 at most (default 100); with `follow` from now on until the signal. */
  raw(query: {
    type: string;
    eid?: string;
    attr?: string;
    limit?: number;
    follow?: boolean;
    signal?: AbortSignal;
  }): AsyncIterable<RawEntry>;
  set(value: {
    type: string;
    eid: string;
    attr: string;
    v: unknown;
    t1?: number;
    t2?: number;
    src?: string;
  }): Promise<{ readonly tokens: readonly ClientToken[] }>;
  delete(key: { type: string; eid: string }): Promise<{ readonly token: ClientToken | null }>;
  /** What an entity links to at an instant (Unix ms; default now); with `reverse` who links to it. */
  links(query: {
    type: string;
    eid: string;
    reverse?: boolean;
    at?: number;
    cursor?: string;
    limit?: number;
  }): Promise<LinksPage>;
}

export interface LinksPage {
  readonly links: readonly LinkedEntity[];
  /** Empty at the end. */
  readonly cursor: string;
  readonly asOf: number;
  readonly at: number;
}

/** One link, and the entity at its other end. */
export interface LinkedEntity {
  /** The source's attribute. */
  readonly attr: string;
  readonly type: string;
  readonly eid: string;
  /** When it was observed, Unix milliseconds; null: the link is plain, and holds now. */
  readonly t1: number | null;
  readonly t2: number | null;
}

export interface EntityPage {
  readonly records: readonly EntityRecord[];
  /** Empty at the end. */
  readonly cursor: string;
  readonly asOf: number;
}

/** `connected` gives the connection to call on; `deadlineMs` bounds each call. */
export function createEntitiesClient(connected: () => Promise<Dialled>, deadlineMs: number): EntitiesClient {
  const { method } = Entities;
  return {
    get: async ({ token, ...key }) => {
      const request = { ...key, ...(token === undefined ? {} : { token: toWireToken(token) }) };
      return toRecord(await callUnary(await connected(), method.get, request, deadlineMs));
    },
    list: async (query) => {
      const { records, cursor, asOf } = await callUnary(await connected(), method.list, query, deadlineMs);
      return { records: records.map(toRecord), cursor, asOf };
    },
    count: async (type = "") => {
      const { counts, asOf } = await callUnary(await connected(), method.count, { type }, deadlineMs);
      return { counts, asOf };
    },
    raw: async function* ({ signal, ...query }) {
      for await (const raw of callStream(await connected(), method.raw, query, signal)) yield toRawEntry(raw);
    },
    set: async ({ v, ...value }) => {
      const request = { ...value, v: toWireValue(v) };
      const { tokens } = await callUnary(await connected(), method.set, request, deadlineMs);
      return { tokens: tokens.map(toClientToken) };
    },
    delete: async (key) => {
      const { token } = await callUnary(await connected(), method.delete, key, deadlineMs);
      return { token: token === undefined ? null : toClientToken(token) };
    },
    links: async (query) => {
      const { links, cursor, asOf, at } = await callUnary(await connected(), method.links, query, deadlineMs);
      return { links: links.map(toLinked), cursor, asOf, at };
    },
  };
}

function toLinked({ attr, type, eid, t1, t2 }: WireLinked): LinkedEntity {
  return { attr, type, eid, t1: t1 ?? null, t2: t2 ?? null };
}

function toRecord(record: WireRecord): EntityRecord {
  const { type, eid, createdAt, token } = record;
  return {
    type,
    eid,
    createdAt,
    attributes: parseObject(record.attributesJson),
    history: parseObject(record.historyJson),
    ttlTokens: parseObject(record.ttlJson),
    token: token === undefined ? null : toClientToken(token),
    at: record.atJson === "" ? null : (JSON.parse(record.atJson) as RecordAt),
  };
}

function toRawEntry(raw: RawDatapoint): RawEntry {
  const { datapoint, shard, seq, at, asOf } = raw;
  const kind = datapoint?.v?.kind;
  return {
    type: datapoint?.type ?? "",
    eid: datapoint?.eid ?? "",
    attr: datapoint?.attr ?? "",
    v: kind?.case === "json" ? JSON.parse(kind.value) : (kind?.value ?? null),
    t1: datapoint?.t1 ?? null,
    t2: datapoint?.t2 ?? null,
    c: datapoint?.c ?? 1,
    src: datapoint?.src ?? null,
    shard,
    seq: Number(seq),
    at,
    asOf: asOf === 0 ? null : asOf,
  };
}

function parseObject<T>(json: string): Readonly<Record<string, T>> {
  return json === "" ? {} : (JSON.parse(json) as Record<string, T>);
}

function toClientToken({ shard, epoch, seq }: Token): ClientToken {
  return { shard, epoch: Number(epoch), seq: Number(seq) };
}

function toWireToken({ shard, epoch, seq }: ClientToken) {
  return { shard, epoch: BigInt(epoch), seq: BigInt(seq) };
}
