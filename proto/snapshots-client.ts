import type { MessageInitShape } from "@bufbuild/protobuf";
import { callStream, callUnary, type Dialled } from "./client-call.ts";
import {
  type SnapshotFilterSchema,
  type SnapshotInstantSchema,
  Snapshots,
  type SnapshotRun as WireRun,
  type Snapshot as WireSnapshot,
} from "./gen/starling_pb.ts";
import { StarlingError } from "./starling-error.ts";

/** Which run to read: the newest finished one, at or before a tick or a time (Unix ms). */
export interface ReadInstant {
  readonly tick?: number;
  readonly at?: number;
}

/** DP³'s filters, as objects or as JSON text; both hold. */
export interface ReadFilter {
  readonly filter?: object | string;
  readonly fulltext?: object | string;
}

/** The run that an answer is of. */
export interface ReadRun {
  readonly tick: number;
  readonly at: number;
}

export interface SnapshotValues {
  readonly type: string;
  readonly eid: string;
  readonly values: Readonly<Record<string, unknown>>;
}

export interface SnapshotList extends ReadRun {
  readonly snapshots: readonly SnapshotValues[];
  /** Null: these were the last ones. */
  readonly nextSkip: number | null;
}

/** An entity's snapshot of one run. */
export interface SnapshotAt extends ReadRun {
  readonly values: Readonly<Record<string, unknown>>;
}

export interface RunStatus extends ReadRun {
  readonly kind: "full" | "changed";
  readonly cause: "schedule" | "demand";
  readonly status: "running" | "finished" | "failed";
  readonly phase: string;
  readonly startedAt: number;
  readonly endedAt: number | null;
  readonly counts: Readonly<Record<string, number>>;
  readonly hooks: Readonly<Record<string, RunHook>>;
  readonly error: string;
}

/** What a hook's calls came to in one run. */
export interface RunHook {
  readonly calls: number;
  /** Calls that failed for good. */
  readonly failures: number;
  /** Changes that the hook did not declare, which were not taken. */
  readonly undeclared: number;
  /** Values and tasks that were not taken since they break a rule. */
  readonly refused: number;
  readonly tasks: number;
  /** All calls together. */
  readonly ms: number;
  /** The first of what went wrong, in words. */
  readonly problems: readonly string[];
}

/** Typed calls of the service Snapshots; each raises the StarlingError that the node sends. */
export interface SnapshotsClient {
  /** `sort`: `attr`, `attr:1` or `attr:-1`. A page may be shorter than `limit` where snapshots are large. */
  list(
    query: ReadFilter &
      ReadInstant & {
        readonly type: string;
        readonly sort?: readonly string[];
        readonly skip?: number;
        readonly limit?: number;
      },
  ): Promise<SnapshotList>;
  count(query: ReadFilter & ReadInstant & { readonly type: string }): Promise<ReadRun & { readonly count: number }>;
  /** The most frequent first. */
  distinct(
    query: ReadFilter & ReadInstant & { readonly type: string; readonly attr: string; readonly limit?: number },
  ): Promise<
    ReadRun & {
      readonly values: readonly { readonly value: unknown; readonly count: number }[];
      readonly more: boolean;
    }
  >;
  /** Newest first, of the runs before a tick; `before` of the answer goes on, 0 at the end. */
  history(query: {
    readonly type: string;
    readonly eid: string;
    readonly before?: number;
    readonly limit?: number;
  }): Promise<{ readonly moments: readonly SnapshotAt[]; readonly before: number }>;
  /** Everything of one run; of all types, if none is named. */
  stream(
    query: ReadInstant & { readonly type?: string; readonly signal?: AbortSignal },
  ): AsyncIterable<SnapshotValues & ReadRun>;
  /** Asks for a run and answers with its tick when it has begun. */
  run(options?: { readonly full?: boolean }): Promise<number>;
  cancel(tick: number): Promise<void>;
  runs(query?: { readonly before?: number; readonly limit?: number }): Promise<readonly RunStatus[]>;
}

/** `connected` gives the connection to call on; `deadlineMs` bounds each call, but for a stream. */
export function createSnapshotsClient(connected: () => Promise<Dialled>, deadlineMs: number): SnapshotsClient {
  const { method } = Snapshots;
  return {
    list: async ({ type, sort = [], skip = 0, limit = 0, ...rest }) => {
      const request = { type, sort: [...sort], skip, limit, ...selection(rest) };
      const { snapshots, nextSkip, ...run } = await callUnary(await connected(), method.list, request, deadlineMs);
      return { snapshots: snapshots.map(toValues), nextSkip: nextSkip ?? null, ...toRun(run) };
    },
    count: async ({ type, ...rest }) => {
      const request = { type, ...selection(rest) };
      const reply = await callUnary(await connected(), method.count, request, deadlineMs);
      return { count: reply.count, ...toRun(reply) };
    },
    distinct: async ({ type, attr, limit = 0, ...rest }) => {
      const request = { type, attr, limit, ...selection(rest) };
      const { values, more, ...run } = await callUnary(await connected(), method.distinct, request, deadlineMs);
      const told = values.map(({ valueJson, count }) => ({ value: JSON.parse(valueJson) as unknown, count }));
      return { values: told, more, ...toRun(run) };
    },
    history: async ({ type, eid, before = 0, limit = 0 }) => {
      const request = { type, eid, before: BigInt(before), limit };
      const reply = await callUnary(await connected(), method.history, request, deadlineMs);
      let values: SnapshotAt["values"] = {};
      const moments = reply.moments.map(({ valuesJson, ...run }) => {
        if (valuesJson !== "") values = JSON.parse(valuesJson) as SnapshotAt["values"];
        return { ...toRun(run), values };
      });
      return { moments, before: Number(reply.before) };
    },
    stream: async function* ({ type = "", signal, ...rest }) {
      const request = { type, ...instantOf(rest) };
      for await (const { snapshots, ...run } of callStream(await connected(), method.stream, request, signal)) {
        for (const snapshot of snapshots) yield { ...toValues(snapshot), ...toRun(run) };
      }
    },
    run: async ({ full = false } = {}) => {
      return Number((await callUnary(await connected(), method.run, { full }, deadlineMs)).tick);
    },
    cancel: async (tick) => {
      await callUnary(await connected(), method.cancel, { tick: BigInt(tick) }, deadlineMs);
    },
    runs: async ({ before = 0, limit = 0 } = {}) => {
      const request = { before: BigInt(before), limit };
      return (await callUnary(await connected(), method.runs, request, deadlineMs)).runs.map(toStatus);
    },
  };
}

interface Selection {
  readonly filter: MessageInitShape<typeof SnapshotFilterSchema>;
  readonly instant?: MessageInitShape<typeof SnapshotInstantSchema>;
}

function selection({ filter, fulltext, ...rest }: ReadFilter & ReadInstant): Selection {
  return { filter: { genericJson: jsonOf(filter), fulltextJson: jsonOf(fulltext) }, ...instantOf(rest) };
}

function jsonOf(filter: object | string | undefined): string {
  if (filter === undefined) return "";
  return typeof filter === "string" ? filter : JSON.stringify(filter);
}

function instantOf({ tick, at }: ReadInstant): Pick<Selection, "instant"> {
  if (tick !== undefined && at !== undefined) {
    throw new StarlingError("INVALID_ARGUMENT", "a run is named by its tick or by a time, not by both");
  }
  if (tick !== undefined) return { instant: { kind: { case: "tick", value: BigInt(tick) } } };
  return at === undefined ? {} : { instant: { kind: { case: "at", value: at } } };
}

function toValues({ type, eid, valuesJson }: WireSnapshot): SnapshotValues {
  return { type, eid, values: JSON.parse(valuesJson) as SnapshotValues["values"] };
}

function toRun({ tick, at }: { readonly tick: bigint; readonly at: number }): ReadRun {
  return { tick: Number(tick), at };
}

function toStatus({ tick, at, countsJson, hooksJson, ...run }: WireRun): RunStatus {
  const { startedAt, endedAt, phase, error } = run;
  return {
    ...{ tick: Number(tick), at, startedAt, endedAt: endedAt ?? null, phase, error },
    kind: run.kind as RunStatus["kind"],
    cause: run.cause as RunStatus["cause"],
    status: run.status as RunStatus["status"],
    counts: JSON.parse(countsJson) as RunStatus["counts"],
    hooks: JSON.parse(hooksJson) as RunStatus["hooks"],
  };
}
