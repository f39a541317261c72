import { type Block, writeSegment } from "../../actors/log/segment.ts";
import { openPostgresStore, type PostgresStore } from "../../actors/store/postgres-store.ts";
import type { Fence, Segment } from "../../actors/store/store.ts";
import type { EntitySpec } from "../../modules/model.ts";
import { toNodeId, toSeq, toShardId } from "../../proto/ids.ts";
import { shardOf } from "../../proto/shard-of.ts";
import { shuffled, type ThingDatapoint, thingDatapoint } from "./things.ts";

/** The datapoints of a log in the order of their arrival, and where each entity's stand. */
export interface LogPlan {
  readonly rows: number;
  /** The datapoint at a position. */
  at(position: number): ThingDatapoint;
  /** The newest of thing `entity`, newest first; of the busy one if it is {@link LogPlan.busy}. */
  newest(entity: number, limit: number): ThingDatapoint[];
  /** Number of the thing with many datapoints. */
  readonly busy: number;
}

const passes = 10;
const busyRows = 1000;
/** Attributes with short values. */
const attributes = 8;

/** `passes` datapoints of each of `entities` things, but every so often one of the busy thing instead. */
export function createLogPlan(entities: number): LogPlan {
  const rows = passes * entities;
  const busyEvery = Math.max(1, Math.floor(rows / busyRows));
  const busy = entities;
  const order = shuffled(entities, 1);
  const inverse = new Uint32Array(entities);
  for (let i = 0; i < entities; i++) inverse[order[i] ?? 0] = i;
  const entityAt = (position: number) => (position % busyEvery === 0 ? busy : (order[position % entities] ?? 0));
  const at = (position: number) => {
    return thingDatapoint(entityAt(position), position % attributes, Math.floor(position / entities), entities);
  };
  const positionsOf = function* (entity: number): Iterable<number> {
    const step = entity === busy ? busyEvery : entities;
    const first = entity === busy ? 0 : (inverse[entity] ?? 0);
    for (let position = first + step * Math.floor((rows - 1 - first) / step); position >= 0; position -= step) {
      yield position;
    }
  };
  const newest = (entity: number, limit: number) => {
    const own = [...positionsOf(entity)].filter((position) => entityAt(position) === entity);
    return own.slice(0, limit).map(at);
  };
  return { rows, at, newest, busy };
}

export interface LogFilling {
  readonly url: string;
  readonly plan: LogPlan;
  readonly entity: EntitySpec;
  /** Arrival times, Unix ms, of the first and the last datapoint. */
  readonly from: number;
  readonly to: number;
  readonly signal: AbortSignal;
}

const shards = { entity: 256, system: 16 };
const node = toNodeId("bench");
const rowsPerCommit = 20_000;
const commitsInFlight = 2;
/** Lines of a shard's first segments in a commit; what is left is one more. Few and many keys are stored differently. */
const segmentLines = [4, 16];

/** Where the next segment of a shard begins. */
interface ShardEnd {
  seq: number;
  part: number;
}

/**
 * Appends a plan's datapoints to the log as a node does, in segments of one part each, and moves every watermark behind them,
 * while no node runs. Records are not written: raw datapoints do not ask for them.
 */
export async function fillLog(filling: LogFilling): Promise<void> {
  const store = await openPostgresStore({ url: filling.url, lanes: commitsInFlight, shards });
  try {
    const ids = Array.from({ length: shards.entity }, (_, i) => toShardId(i));
    const fences = (await store.acquire(node, ids)).map(({ shard, epoch }) => ({ shard, epoch }));
    const ends = ids.map((): ShardEnd => ({ seq: 1, part: 0 }));
    await appendAll(store, fences, filling, ends);
    const progress = ids.map((shard, i) => {
      const last = toSeq((ends[i]?.seq ?? 1) - 1);
      return { shard, watermark: last, delivered: last, at: filling.to, channels: [] };
    });
    await store.flush(node, { fences, progress, entities: [], history: [], refused: [], deadLetters: [] });
    await store.release(fences, node);
  } finally {
    await store.close();
  }
}

async function appendAll(
  store: PostgresStore,
  fences: readonly Fence[],
  filling: LogFilling,
  ends: readonly ShardEnd[],
): Promise<void> {
  const { plan, from, to, signal } = filling;
  const running = new Set<Promise<unknown>>();
  for (let first = 0; first < plan.rows; first += rowsPerCommit) {
    signal.throwIfAborted();
    const at = Math.round(from + ((to - from) * first) / plan.rows);
    const segments = segmentsOf(filling, ends, { first, end: Math.min(plan.rows, first + rowsPerCommit), at });
    const append = store.append(node, { fences, segments });
    running.add(append);
    void append.then(() => running.delete(append)).catch(() => undefined); // raised below
    if (running.size >= commitsInFlight) await Promise.race(running);
  }
  await Promise.all(running);
}

function segmentsOf(
  { plan, entity }: LogFilling,
  ends: readonly ShardEnd[],
  { first, end, at }: { readonly first: number; readonly end: number; readonly at: number },
): Segment[] {
  const byShard = new Map<number, ThingDatapoint[]>();
  for (let position = first; position < end; position++) {
    const datapoint = plan.at(position);
    const shard = shardOf("entity", datapoint.type, datapoint.eid, shards.entity);
    const list = byShard.get(shard);
    if (list === undefined) byShard.set(shard, [datapoint]);
    else list.push(datapoint);
  }
  const segments: Segment[] = [];
  for (const [number, datapoints] of byShard) {
    const next = ends[number];
    if (next === undefined) throw new Error(`there is no shard ${number}`);
    for (const part of cut(datapoints)) {
      const shard = toShardId(number);
      const tasks = part.map((datapoint) => taskOf(entity, datapoint));
      const place = {
        kind: "part",
        position: 0,
        shard,
        channel: "c:bench",
        number: next.part + 1,
        predecessor: next.part,
      } as const;
      const content = { hash: "0".repeat(16), tasks, rejections: [], bytes: 0 };
      const block: Block = { ...place, ...content };
      segments.push(writeSegment({ shard, seq: toSeq(next.seq), at }, [block]));
      next.part++;
      next.seq += part.length;
    }
  }
  return segments;
}

function cut<T>(list: readonly T[]): T[][] {
  const pieces: T[][] = [];
  let from = 0;
  for (const length of [...segmentLines, list.length]) {
    if (from < list.length) pieces.push(list.slice(from, from + length));
    from += length;
  }
  return pieces;
}

function taskOf(entity: EntitySpec, { type, eid, attr, v, t1, t2, src }: ThingDatapoint) {
  const spec = entity.attributes.get(attr);
  if (spec === undefined) throw new Error(`the model has no attribute ${attr}`);
  const json = JSON.stringify(v);
  // Only the JSON text is written.
  const datapoint = { type, eid, attr, json, v: json, t1: t1 ?? null, t2: t2 ?? null, c: 1, src, spec, line: null };
  return { entity, eid, eidValue: eid, datapoints: [datapoint], ttlTokens: null, delete: false, cause: null };
}
