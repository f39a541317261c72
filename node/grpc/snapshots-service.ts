import { parseFulltextFilter, parseGenericFilter } from "../../actors/filters/parse-filter.ts";
import { parseDistinct, parseSort, sortMax } from "../../actors/filters/parse-sort.ts";
import type { SnapshotFilter } from "../../actors/filters/snapshot-filter.ts";
import { readSnapshotHistory } from "../../actors/snapshots/snapshot-history.ts";
import type { Snapshots as Runs } from "../../actors/snapshots/snapshots.ts";
import type { FinishedRun, SnapshotPlace, SnapshotQueries } from "../../actors/store/snapshot-queries.ts";
import type { SnapshotRun } from "../../actors/store/snapshot-store.ts";
import { checkEid, findEntity } from "../../modules/check-datapoint.ts";
import { eidText } from "../../modules/eid.ts";
import type { EntitySpec, Model } from "../../modules/model.ts";
import type {
  CountSnapshotsRequest,
  DistinctRequest,
  ListSnapshotsRequest,
  SnapshotHistoryRequest,
  Snapshots,
  StreamSnapshotsRequest,
  SnapshotFilter as WireFilter,
  SnapshotInstant as WireInstant,
} from "../../proto/gen/starling_pb.ts";
import { toShardId } from "../../proto/ids.ts";
import { shardOf } from "../../proto/shard-of.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import type { Handlers } from "./service.ts";

export interface SnapshotsFace {
  readonly queries: SnapshotQueries;
  /** Null: the node is not that far yet. */
  readonly runs: () => Pick<Runs, "runNow" | "cancel" | "runs"> | null;
}

export interface SnapshotsOptions {
  readonly face: SnapshotsFace;
  readonly model: Model;
  readonly entityShards: number;
}

const limitDefault = 20;
const limitMax = 1_000;
const skipMax = 100_000;
/** Characters of JSON in one message, beyond its first snapshot. */
const messageMaxChars = 8 * 1024 * 1024;
/** Of a stream a message is sent when it has so many. */
const streamChars = 256 * 1024;
const streamPlaces = 500;

/** Snapshots, as runs have left them, and the runs themselves. */
export function createSnapshotsHandlers(options: SnapshotsOptions): Handlers<typeof Snapshots> {
  const runs = () => {
    const found = options.face.runs();
    if (found === null) throw new StarlingError("UNAVAILABLE", "the node is joining the cluster");
    return found;
  };
  return {
    list: ({ message }) => listSnapshots(options, message),
    count: ({ message }) => countSnapshots(options, message),
    distinct: ({ message }) => distinctValues(options, message),
    history: ({ message }) => readHistory(options, message),
    stream: ({ message }, { signal }) => streamSnapshots(options, message, signal),
    run: async ({ message: { full } }, { deadlineMs, signal }) => {
      // What is left over is for the answer's way.
      return { tick: BigInt(await runs().runNow({ full, deadlineMs: Math.max(0, deadlineMs - 500), signal })) };
    },
    cancel: async ({ message: { tick } }) => {
      await runs().cancel(Number(tick));
      return {};
    },
    runs: async ({ message: { before, limit } }) => {
      const found = await runs().runs({ before: beforeOf(before), limit: limitOf(limit) });
      return { runs: found.map(runOnWire) };
    },
  };
}

async function listSnapshots({ face: { queries }, model }: SnapshotsOptions, request: ListSnapshotsRequest) {
  const entity = findEntity(model, request.type);
  const filter = filterOf(model, entity, request.filter);
  if (request.sort.length > sortMax) {
    throw new StarlingError("INVALID_FILTER", `an order has at most ${sortMax} keys: found ${request.sort.length}`);
  }
  const sort = request.sort.map((text) => parseSort(entity, text));
  const { skip } = request;
  if (skip > skipMax) {
    throw new StarlingError("INVALID_ARGUMENT", `at most ${skipMax} can be skipped: \`Stream\` tells everything`);
  }
  const limit = limitOf(request.limit);
  const run = await runOf(queries, request.instant);
  const asked = { type: entity.id, tick: run.tick, filter, sort, skip, limit: limit + 1 };
  const places = await queries.listSnapshots(asked);
  const page = await readPage(queries, places.slice(0, limit));
  const more = page.taken < places.length;
  return { snapshots: page.snapshots, ...(more && { nextSkip: skip + page.taken }), ...onWire(run) };
}

/** The snapshots at places, as many as one message holds, and how many places that takes. */
async function readPage(queries: SnapshotQueries, places: readonly SnapshotPlace[]) {
  const bodies = await queries.snapshotBodies(places);
  const snapshots: { type: string; eid: string; valuesJson: string }[] = [];
  let chars = 0;
  for (const [i, { type, eid }] of places.entries()) {
    const body = bodies[i];
    // Retention has just taken it.
    if (body === undefined) continue;
    chars += body?.length ?? 0;
    if (body === null || (snapshots.length > 0 && chars > messageMaxChars)) return { snapshots, taken: i };
    snapshots.push({ type, eid, valuesJson: body });
  }
  return { snapshots, taken: places.length };
}

async function countSnapshots({ face: { queries }, model }: SnapshotsOptions, request: CountSnapshotsRequest) {
  const entity = findEntity(model, request.type);
  const filter = filterOf(model, entity, request.filter);
  const run = await runOf(queries, request.instant);
  return { count: await queries.countSnapshots({ type: entity.id, tick: run.tick, filter }), ...onWire(run) };
}

async function distinctValues({ face: { queries }, model }: SnapshotsOptions, request: DistinctRequest) {
  const entity = findEntity(model, request.type);
  const path = parseDistinct(entity, request.attr);
  const filter = filterOf(model, entity, request.filter);
  const limit = limitOf(request.limit);
  const run = await runOf(queries, request.instant);
  const values = await queries.distinctValues({ type: entity.id, tick: run.tick, filter, path, limit: limit + 1 });
  const told = values.slice(0, limit).map(({ value, count }) => ({ valueJson: value, count }));
  return { values: told, more: values.length > limit, ...onWire(run) };
}

async function readHistory(
  { face: { queries }, model, entityShards }: SnapshotsOptions,
  request: SnapshotHistoryRequest,
) {
  const entity = findEntity(model, request.type);
  const eid = eidText(entity, checkEid(entity, request.eid));
  const shard = shardOf("entity", entity.id, eid, entityShards);
  const limit = limitOf(request.limit);
  const key = { shard, type: entity.id, eid };
  const moments = await readSnapshotHistory(queries, key, { before: beforeOf(request.before), limit });
  const last = moments.at(-1);
  return {
    moments: moments.map(({ tick, at, body }) => ({ tick: BigInt(tick), at, valuesJson: body ?? "" })),
    before: BigInt(last?.tick ?? 0),
  };
}

async function* streamSnapshots(
  { face: { queries }, model, entityShards }: SnapshotsOptions,
  request: StreamSnapshotsRequest,
  signal: AbortSignal,
) {
  const type = request.type === "" ? null : findEntity(model, request.type).id;
  const run = await runOf(queries, request.instant);
  let snapshots: Awaited<ReturnType<typeof readPage>>["snapshots"] = [];
  let chars = 0;
  for (let shard = 0; shard < entityShards && !signal.aborted; shard++) {
    let after = { eid: "", type: "" };
    for (let places: SnapshotPlace[] | null = null; places === null || places.length > 0; ) {
      const asked = { shard: toShardId(shard), type, tick: run.tick, after, limit: streamPlaces };
      places = await queries.snapshotPage(asked);
      for (let at = 0; at < places.length && !signal.aborted; ) {
        const page = await readPage(queries, places.slice(at));
        at += page.taken;
        for (const snapshot of page.snapshots) {
          snapshots.push(snapshot);
          chars += snapshot.valuesJson.length;
          if (chars < streamChars) continue;
          yield { snapshots, ...onWire(run) };
          snapshots = [];
          chars = 0;
        }
      }
      after = places.at(-1) ?? after;
      if (places.length < streamPlaces) break;
    }
  }
  // What is dropped meanwhile would be missing without a word.
  const still = await queries.finishedRun({ tick: run.tick });
  if (still?.tick !== run.tick) throw new StarlingError("NOT_FOUND", `run ${run.tick} was dropped while it was told`);
  if (!signal.aborted) yield { snapshots, ...onWire(run) };
}

async function runOf(queries: SnapshotQueries, instant: WireInstant | undefined): Promise<FinishedRun> {
  const kind = instant?.kind;
  if (kind?.case === "at" && !Number.isFinite(kind.value)) {
    throw new StarlingError("INVALID_ARGUMENT", "`at` is a time in Unix milliseconds");
  }
  const tick = kind?.case === "tick" ? Number(kind.value) : null;
  const at = kind?.case === "at" ? kind.value : null;
  const run = await queries.finishedRun(tick !== null ? { tick } : at !== null ? { at } : null);
  if (run !== null) return run;
  const until = tick !== null ? ` up to ${tick}` : at !== null ? " at or before that time" : "";
  throw new StarlingError("NOT_FOUND", `no snapshot run${until} has finished: \`starling snapshot run\` makes one`);
}

function filterOf(model: Model, entity: EntitySpec, filter: WireFilter | undefined): SnapshotFilter {
  const { genericJson = "", fulltextJson = "" } = filter ?? {};
  return {
    kind: "and",
    of: [parseGenericFilter(model, entity, genericJson), parseFulltextFilter(entity, fulltextJson)],
  };
}

function runOnWire(run: SnapshotRun) {
  const { tick, at, kind, cause, status, phase, startedAt, endedAt, counts, hooks, error } = run;
  return {
    ...{ tick: BigInt(tick), at, kind, cause, status, phase, startedAt },
    ...(endedAt !== null && { endedAt }),
    ...{ countsJson: JSON.stringify(counts), hooksJson: JSON.stringify(hooks), error: error ?? "" },
  };
}

function onWire({ tick, at }: FinishedRun) {
  return { tick: BigInt(tick), at };
}

function beforeOf(tick: bigint): number | null {
  return tick === 0n ? null : Number(tick);
}

function limitOf(limit: number): number {
  return limit === 0 ? limitDefault : Math.min(limit, limitMax);
}
