import { StarlingError } from "../proto/starling-error.ts";
import { copyView, type Entity, restoreEntity } from "./entity.ts";
import type { GetReply, Lane, LaneMessage, LoadWanted } from "./lane.ts";
import { isOverdue } from "./obligation.ts";
import { advance } from "./processing.ts";
import { dropEntity, entityOf, type Shard } from "./shard.ts";
import type { StoredEntity } from "./store/store.ts";

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
  lane.effects.push({ kind: "health", problem: null });
  const byKey = new Map(found.map((stored) => [`${stored.shard} ${stored.type} ${stored.eid}`, stored]));
  for (const { shard, entity } of wanted) {
    if (entity.status !== "loading") continue;
    restoreEntity(entity, byKey.get(`${shard.id} ${entity.spec.id} ${entity.eid}`) ?? null);
    if (lane.shards.get(shard.id) === shard) advance(lane, shard, entity);
  }
  for (const get of lane.parkedGets.splice(0)) onGet(lane, get);
}

/** The store did not answer a load: the same again. */
export function onLoadFailed(lane: Lane, wanted: readonly LoadWanted[], error: StarlingError): void {
  lane.effects.push({ kind: "health", problem: error });
  lane.effects.push({ kind: "load", wanted, delayMs: 250 });
}

/** Answers a read of one record from its owner's memory (R24); activates the entity when it is not resident. */
export function onGet(lane: Lane, message: Extract<LaneMessage, { kind: "get" }>): void {
  const { key, atLeast, reply } = message;
  const shard = lane.shards.get(key.shard);
  if (shard === undefined) {
    return answer(lane, reply, new StarlingError("MOVED", `this node does not own shard ${key.shard}`));
  }
  const spec = lane.world.model.entities.get(key.type);
  if (spec === undefined) return answer(lane, reply, new StarlingError("UNKNOWN_TYPE", `no entity type ${key.type}`));
  const known = shard.entities[spec.index]?.get(key.eid);
  const entity = known ?? entityOf(shard, spec, key.eid, message.eidValue);
  if (known === undefined) lane.toLoad.push({ shard, entity });
  if (entity.status === "loading") {
    lane.parkedGets.push(message);
    return;
  }
  const unapplied = entity.mailbox?.find((entry) => entry.phase !== "ended" && entry.lastSeq > entity.applied);
  if (
    atLeast !== null &&
    (atLeast.seq > shard.durableSeq || (unapplied !== undefined && unapplied.seq <= atLeast.seq))
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

function answer(lane: Lane, reply: GetReply, record: Parameters<GetReply>[0]): void {
  lane.effects.push({ kind: "reply", reply, record });
}

/**
 * Forgets activations that have not been used for a while, and the oldest ones when there are too many; and looks for hooks
 * that hold a watermark for too long.
 */
export function sweep(lane: Lane): void {
  const { limits } = lane.world;
  const { now } = lane;
  let residents = 0;
  for (const shard of lane.shards.values()) {
    residents += shard.residents;
    const first = shard.open[shard.firstOpen];
    if (first !== undefined && isOverdue(lane, shard, first)) lane.touched.add(shard);
  }
  // Over the bound everything that is clean and older than a second may go, oldest shard maps first.
  const idleMs = residents > limits.residentMaxEntities ? 1000 : limits.passivateAfterMs;
  for (const shard of lane.shards.values()) {
    if (shard.residents > 0) sweepShard(shard, now - idleMs);
  }
}

function sweepShard(shard: Shard, usedBefore: number): void {
  for (const ofType of shard.entities) {
    for (const entity of ofType.values()) {
      if (entity.usedAt <= usedBefore && isClean(entity)) dropEntity(shard, entity);
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
