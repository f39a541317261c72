import type { Engine, LogPlace, OwnedRecord } from "../../actors/engine.ts";
import { observedAt } from "../../actors/history/history-at.ts";
import { type Histories, type HistoryPart, readHistories } from "../../actors/history/history-read.ts";
import { longState } from "../../actors/lane/entity-state.ts";
import type { Part } from "../../actors/lane/part.ts";
import { splitBatch } from "../../actors/sessions/batch.ts";
import { type CallChannel, type CallSession, replyOf } from "../../actors/sessions/call-session.ts";
import { tokensOf } from "../../actors/sessions/session.ts";
import { looseOf } from "../../actors/sessions/wire-datapoint.ts";
import { wireToken } from "../../actors/sessions/wire-token.ts";
import type { EntityKey, Queries, RawRow, StoredEntity } from "../../actors/store/store.ts";
import { isActorType } from "../../modules/behaviour.ts";
import { checkEid, findEntity } from "../../modules/check-datapoint.ts";
import { eidText, readEid } from "../../modules/eid.ts";
import type { EntitySpec, Model } from "../../modules/model.ts";
import type {
  DeleteRequest,
  Entities,
  GetRequest,
  ListRequest,
  RawRequest,
  SetRequest,
  Token,
} from "../../proto/gen/starling_pb.ts";
import { toEpoch, toSeq, toShardId } from "../../proto/ids.ts";
import { shardOf } from "../../proto/shard-of.ts";
import { type ErrorCode, StarlingError } from "../../proto/starling-error.ts";
import { atJson } from "./at-json.ts";
import { attributesJson } from "./attributes-json.ts";
import { findLinks } from "./entity-links.ts";
import { historyJson } from "./history-json.ts";
import type { CallContext, Handlers } from "./service.ts";

export interface EntitiesOptions {
  readonly engine: Engine;
  readonly model: Model;
  readonly calls: CallSession;
  /** The wall clock, Unix ms. */
  readonly now: () => number;
}

const limitDefault = 100;
const limitMax = 1_000;

/** Reads and single writes of entities. */
export function createEntitiesHandlers(options: EntitiesOptions): Handlers<typeof Entities> {
  const { engine, model } = options;
  return {
    get: ({ message }) => getRecord(options, message),
    list: ({ message }) => listRecords(options, message),
    count: async ({ message }) => {
      const type = message.type === "" ? null : findEntity(model, message.type).id;
      const asOf = engine.flushedUpTo();
      const counts = [...(await engine.queries.count(type))].filter(([name]) => !isActorType(name));
      return { counts: Object.fromEntries(counts), asOf };
    },
    raw: ({ message }, context) => rawDatapoints(options, message, context.signal),
    set: ({ message }, context) => setAttribute(options, message, context),
    delete: ({ message }, context) => deleteEntity(options, message, context),
    links: ({ message }) => findLinks(options, message),
  };
}

async function getRecord({ engine, model }: EntitiesOptions, request: GetRequest) {
  const entity = findEntity(model, request.type);
  const eid = eidOf(entity, request.eid);
  const shard = shardOf("entity", entity.id, eid, engine.entityShards);
  const owned = await engine.get(entity.id, eid, placeOf(request.token, shard));
  if (owned === null) throw new StarlingError("NOT_FOUND", `there is no ${entity.id} ${eid}`);
  const limit = Math.min(request.historyLimit, limitMax);
  const key = { shard, type: entity.id, eid };
  const history =
    limit === 0 ? "" : historyJson(entity, await historiesOf(engine.queries, entity, key, { newest: limit }), limit);
  const atJson = request.at === undefined ? "" : await recordAt(engine.queries, entity, { key, owned, at: request.at });
  return { ...recordOf(entity, eid, owned), historyJson: history, atJson };
}

async function recordAt(
  queries: Queries,
  entity: EntitySpec,
  { key, owned, at }: { readonly key: EntityKey; readonly owned: OwnedRecord; readonly at: number },
): Promise<string> {
  if (!Number.isFinite(at)) throw new StarlingError("INVALID_ARGUMENT", "`at` is a time in Unix milliseconds");
  const histories = await historiesOf(queries, entity, key, { at });
  return atJson(entity, owned.view, observedAt(entity, histories, { at, now: Date.now() }), at);
}

async function historiesOf(
  queries: Queries,
  entity: EntitySpec,
  key: EntityKey,
  part: HistoryPart,
): Promise<Histories> {
  const [histories = new Map()] = await readHistories(queries, entity, [key], part);
  return histories;
}

function recordOf(entity: EntitySpec, eid: string, owned: OwnedRecord) {
  return {
    type: entity.id,
    eid,
    createdAt: owned.createdAt,
    attributesJson: attributesJson(entity, owned.view),
    token: wireToken(owned.place),
    ttlJson: JSON.stringify(owned.ttlTokens),
  };
}

async function listRecords({ engine, model }: EntitiesOptions, request: ListRequest) {
  const entity = findEntity(model, request.type);
  const limit = limitOf(request.limit);
  const asOf = engine.flushedUpTo();
  const rows = await engine.queries.list({ type: entity.id, after: request.cursor, limit });
  const cursor = rows.length === limit ? (rows.at(-1)?.eid ?? "") : "";
  return { records: rows.filter((row) => !row.tombstone).map(storedRecordOf), cursor, asOf };
}

function storedRecordOf(row: StoredEntity) {
  const token = wireToken({ shard: row.shard, epoch: toEpoch(0), seq: row.applied });
  const { type, eid, createdAt } = row;
  return { type, eid, createdAt, attributesJson: longState(row.state), token, ttlJson: "{}" };
}

async function* rawDatapoints({ engine, model, now }: EntitiesOptions, request: RawRequest, signal: AbortSignal) {
  const entity = findEntity(model, request.type);
  if (request.attr !== "" && !entity.attributes.has(request.attr)) {
    throw new StarlingError("UNKNOWN_ATTRIBUTE", `entity type ${entity.id} has no attribute ${request.attr}`);
  }
  const attr = request.attr === "" ? null : request.attr;
  if (request.follow) {
    const eid = request.eid === "" ? null : eidOf(entity, request.eid);
    for await (const row of engine.follow({ type: entity.id, eid, attr }, signal)) yield rawOf(row, 0);
    return;
  }
  // Of what comes in one piece less than was asked for would pass for all there is.
  if (request.limit > limitMax) {
    throw new StarlingError("INVALID_ARGUMENT", `the newest ${limitMax} at most, not ${request.limit}`);
  }
  const eid = eidOf(entity, request.eid);
  const shard = shardOf("entity", entity.id, eid, engine.entityShards);
  const asOf = now();
  const rows = await engine.queries.raw({ shard, type: entity.id, eid, attr, limit: limitOf(request.limit) });
  for (const row of rows) yield rawOf(row, asOf);
}

function rawOf(row: RawRow, asOf: number) {
  const times = { ...(row.t1 === null ? {} : { t1: row.t1 }), ...(row.t2 === null ? {} : { t2: row.t2 }) };
  const src = row.src === null ? {} : { src: row.src };
  const v = { kind: { case: "json" as const, value: row.json } };
  const datapoint = { type: row.type, eid: row.eid, attr: row.attr, v, ...times, c: row.c, ...src };
  return { datapoint, shard: row.shard, seq: BigInt(row.seq), at: row.at, asOf };
}

async function setAttribute({ engine, model, calls }: EntitiesOptions, request: SetRequest, context: CallContext) {
  const { type, eid, attr, v, t1, t2, src } = request;
  const item = { type, eid, attr, v, t1, t2, src: src === "" ? undefined : src };
  const content = { atomic: true, hash: "0".repeat(16), bytes: 0, datapoints: [item] };
  const split = ({ channel, number, homeShard }: CallChannel) => {
    const batch = splitBatch(
      { ...content, number },
      { model, entityShards: engine.entityShards, channel, homeShard, read: looseOf },
    );
    const [refused] = batch.rejections;
    // Nothing has to be remembered of a refusal: the call has no number that could come again.
    if (refused !== undefined) throw new StarlingError(refused.code as ErrorCode, refused.message);
    return batch;
  };
  return replyOf(await calls.send(split, { ...context, level: "durable", idempotencyKey: "" }));
}

async function deleteEntity({ engine, model, calls }: EntitiesOptions, request: DeleteRequest, context: CallContext) {
  const entity = findEntity(model, request.type);
  const eid = eidOf(entity, request.eid);
  const shard = shardOf("entity", entity.id, eid, engine.entityShards);
  const task = {
    entity,
    eid,
    eidValue: readEid(entity, eid),
    datapoints: [],
    ttlTokens: null,
    delete: true,
    cause: null,
    link: null,
  };
  const split = ({ channel, number }: CallChannel) => {
    const content = { hash: "0".repeat(16), tasks: [task], rejections: [], bytes: 128 };
    const part: Part = { kind: "part", position: 0, shard, channel, number, predecessor: null, ...content };
    const size = { bytes: 128, items: 0, accepted: 0, partOf: new Int32Array(0), whole: false };
    return { number, ...size, parts: [part], rejections: [] };
  };
  const batch = await calls.send(split, { ...context, level: "durable", idempotencyKey: "" });
  const [token] = tokensOf(batch);
  return token === undefined ? {} : { token: wireToken(token) };
}

function eidOf(entity: EntitySpec, eid: string): string {
  return eidText(entity, checkEid(entity, eid));
}

function placeOf(token: Token | undefined, shard: number): LogPlace | null {
  if (token === undefined) return null;
  if (token.shard !== shard) {
    throw new StarlingError("INVALID_ARGUMENT", `the token names shard ${token.shard}, the entity lives in ${shard}`);
  }
  return { shard: toShardId(token.shard), epoch: toEpoch(Number(token.epoch)), seq: toSeq(Number(token.seq)) };
}

function limitOf(limit: number): number {
  return limit === 0 ? limitDefault : Math.min(limit, limitMax);
}
