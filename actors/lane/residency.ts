import type { Seq } from "../../proto/ids.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import type { EntityKey, StoredEntity } from "../store/store.ts";
import { forgetChannels } from "./channel-life.ts";
import type { Entity } from "./entity.ts";
import { restoreEntity } from "./entity-state.ts";
import { copyView } from "./entity-view.ts";
import type { GetReply, Lane, LaneMessage, LoadWanted } from "./lane.ts";
import { isOverdue } from "./obligation.ts";
import { advance } from "./processing.ts";
import { expireReplies } from "./replies.ts";
import { dropEntity, entityOf, isSealed, type Shard } from "./shard.ts";

/** Loads at once per lane, and entities per load. */
const loadsMax = 2;
const loadMaxEntities = 2000;

/** Asks for the records of activations that wait for them. */
export function startLoads(lane: Lane): void {
  while (lane.toLoad.length > 0 && lane.loading < loadsMax) {
    const wanted = lane.toLoad.length <= loadMaxEntities ? lane.toLoad : lane.toLoad.slice(0, loadMaxEntities);
    lane.toLoad = wanted === lane.toLoad ? [] : lane.toLoad.slice(loadMaxEntities);
    lane.loading++;
    lane.effects.push({ kind: "load", wanted, delayMs: 0 });
  }
}

/** Activations have their records: their tasks run. */
export function onLoaded(lane: Lane, wanted: readonly LoadWanted[], found: readonly StoredEntity[]): void {
  lane.loading--;
  lane.effects.push({ kind: "health", work: "load", problem: null });
  const records = new Map<Entity, StoredEntity>();
  for (const stored of found) {
    const entity = residentOf(lane, stored);
    if (entity !== undefined) records.set(entity, stored);
  }
  for (const { shard, entity } of wanted) {
    if (entity.status !== "loading") continue;
    const before = entity.bytes;
    restoreEntity(entity, records.get(entity) ?? null);
    shard.residentBytes += entity.bytes - before;
    if (lane.shards.get(shard.id) === shard) advance(lane, shard, entity);
  }
  for (const get of lane.parkedGets.splice(0)) onGet(lane, get);
}

/** The activation that the lane knows by a key; what waits for its record is known, and no key need be written for it. */
function residentOf(lane: Lane, { shard, type, eid }: EntityKey): Entity | undefined {
  const spec = lane.world.model.entities.get(type);
  return spec && lane.shards.get(shard)?.entities[spec.index]?.get(eid);
}

/** The store did not answer a load: the same again. */
export function onLoadFailed(lane: Lane, wanted: readonly LoadWanted[], error: StarlingError): void {
  lane.effects.push({ kind: "health", work: "load", problem: error });
  lane.effects.push({ kind: "load", wanted, delayMs: 250 });
}

/** Who asks gives up after a while; what it asked for waits on, for as long as PostgreSQL does not answer. */
const parkedGetsMax = 10_000;

/** Answers a read of one record from its owner's memory (R24); activates the entity when it is not resident. */
export function onGet(lane: Lane, message: Extract<LaneMessage, { kind: "get" }>): void {
  const { key, atLeast, reply } = message;
  const shard = lane.shards.get(key.shard);
  if (shard === undefined || isSealed(shard)) {
    return answer(lane, reply, new StarlingError("MOVED", `this node does not own shard ${key.shard}`));
  }
  const spec = lane.world.model.entities.get(key.type);
  if (spec === undefined) return answer(lane, reply, new StarlingError("UNKNOWN_TYPE", `no entity type ${key.type}`));
  const known = shard.entities[spec.index]?.get(key.eid);
  if ((known === undefined || known.status === "loading") && lane.parkedGets.length >= parkedGetsMax) {
    return answer(lane, reply, new StarlingError("BUSY", `${parkedGetsMax} reads wait for their records already`));
  }
  const entity = known ?? entityOf(shard, spec, key.eid, message.eidValue);
  if (known === undefined) lane.toLoad.push({ shard, entity });
  if (entity.status === "loading") {
    lane.parkedGets.push(message);
    return;
  }
  const unapplied = entity.mailbox?.find((entry) => entry.phase !== "ended" && entry.lastSeq > entity.applied);
  if (
    atLeast !== null &&
    (atLeast.seq > shard.durableSeq ||
      isLost(shard, atLeast.seq) ||
      (unapplied !== undefined && unapplied.seq <= atLeast.seq))
  ) {
    return answer(
      lane,
      reply,
      new StarlingError("BEHIND", `${key.type} ${key.eid} has not yet processed ${atLeast.seq}`),
    );
  }
  entity.usedAt = lane.now;
  if (!entity.exists) return answer(lane, reply, null);
  const place = { shard: shard.id, epoch: shard.epoch, seq: entity.applied };
  const { createdAt } = entity;
  answer(lane, reply, { view: copyView(entity), createdAt, place, ttlTokens: entity.ttlTokens ?? {} });
}

/** Whether a seq is of another world, which had more than this one has (R25): what it stood for never comes. */
function isLost({ lost }: Shard, seq: Seq): boolean {
  return lost !== null && lost.below < seq && seq < lost.above;
}

function answer(lane: Lane, reply: GetReply, record: Parameters<GetReply>[0]): void {
  lane.effects.push({ kind: "reply", reply, record });
}

/**
 * Forgets activations that have not been used for a while, and the longest unused ones when they are too many or take too
 * much; and looks for hooks that hold a watermark for too long.
 */
export function sweep(lane: Lane): void {
  const { limits } = lane.world;
  const { now } = lane;
  let entities = -limits.residentMaxEntities;
  let bytes = -limits.residentMaxBytes;
  for (const shard of lane.shards.values()) {
    const first = shard.open[shard.firstOpen];
    if (first !== undefined && isOverdue(lane, shard, first)) lane.touched.add(shard);
    expireReplies(lane, shard);
    forgetChannels(lane, shard);
    const usedBefore = now - limits.passivateAfterMs;
    if (shard.residents > 0 && shard.usedSince <= usedBefore) sweepShard(shard, now, usedBefore);
    entities += shard.residents;
    bytes += shard.residentBytes;
  }
  if (entities > 0 || bytes > 0) evict(lane, { entities, bytes });
}

function sweepShard(shard: Shard, now: number, usedBefore: number): void {
  let usedSince = now;
  for (const ofType of shard.entities) {
    for (const entity of ofType.values()) {
      if (entity.usedAt <= usedBefore && isClean(entity)) dropEntity(shard, entity);
      else usedSince = Math.min(usedSince, entity.usedAt);
    }
  }
  shard.usedSince = usedSince;
}

/** What was used within this time stays, also above the bounds. */
const restMs = 1000;
const ages = 256;

/**
 * Forgets what is clean and older than a second until nothing is left above the bounds, oldest first. Ages are told apart
 * in so many steps of the idle time, which two looks at each entity do; to sort them all would hold the lane up.
 */
function evict(lane: Lane, over: { entities: number; bytes: number }): void {
  const youngest = lane.now - restMs;
  const stepMs = Math.max(1, lane.world.limits.passivateAfterMs - restMs) / ages;
  const ageOf = ({ usedAt }: Entity): number => Math.min(ages - 1, Math.floor((youngest - usedAt) / stepMs));
  const counts = new Float64Array(ages);
  const sizes = new Float64Array(ages);
  eachClean(lane, youngest, (_, entity) => {
    const age = ageOf(entity);
    counts[age] = (counts[age] ?? 0) + 1;
    sizes[age] = (sizes[age] ?? 0) + entity.bytes;
  });
  let { entities, bytes } = over;
  let last = ages;
  while (last > 0 && (entities > 0 || bytes > 0)) {
    last--;
    entities -= counts[last] ?? 0;
    bytes -= sizes[last] ?? 0;
  }
  // Of the youngest of these as many as are needed.
  entities += counts[last] ?? 0;
  bytes += sizes[last] ?? 0;
  eachClean(lane, youngest, (shard, entity) => {
    const age = ageOf(entity);
    if (age < last) return;
    if (age === last) {
      if (entities <= 0 && bytes <= 0) return;
      entities--;
      bytes -= entity.bytes;
    }
    dropEntity(shard, entity);
  });
}

function eachClean(lane: Lane, usedBefore: number, look: (shard: Shard, entity: Entity) => void): void {
  for (const shard of lane.shards.values()) {
    for (const ofType of shard.entities) {
      for (const entity of ofType.values()) {
        if (entity.usedAt <= usedBefore && isClean(entity)) look(shard, entity);
      }
    }
  }
}

/** Only the clean passivate: flushed, no hook running, nothing waiting (R14). */
function isClean(entity: Entity): boolean {
  return (
    entity.status === "resident" &&
    entity.dirtySeq === 0 &&
    entity.flushed === entity.applied &&
    entity.open === 0 &&
    entity.obligation === null &&
    entity.mailbox === null
  );
}
