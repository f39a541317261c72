import { type Seq, type ShardId, toSeq } from "../../proto/ids.ts";
import type { StarlingError } from "../../proto/starling-error.ts";
import { takeLookAt } from "../lifetimes/lifetime.ts";
import { takeLinks } from "../links/entity-links.ts";
import { takeImage } from "../snapshots/tick-image.ts";
import { openCut, passedMark } from "../snapshots/tick-mark.ts";
import type { FlushRequest, ShardProgress, StoredEntity, WriteResult } from "../store/store.ts";
import { isOutboxChannel, tellPassed, tellProcessed } from "./admission.ts";
import { flushShare } from "./append-pace.ts";
import { passBacklog } from "./backlog.ts";
import type { Channel, WaitingPart } from "./channel.ts";
import { loseShards, owns } from "./commit.ts";
import type { Entity } from "./entity.ts";
import { writeState } from "./entity-state.ts";
import { isSettled } from "./entry.ts";
import { type Flush, type Lane, storeDelayMs } from "./lane.ts";
import { takeLarge } from "./large-rows.ts";
import { owe, planObligations } from "./obligation.ts";
import { passDeliveries } from "./outbox.ts";
import { needsMark, onMarked, planAttempts, planLastAttempt } from "./poison.ts";
import { advance } from "./processing.ts";
import { countPassed, forgetPassed } from "./recent-parts.ts";
import { deliveredUpTo, isSealed, type Shard } from "./shard.ts";

/**
 * Write-behind: a flush writes, in one transaction, the records of the entities that changed longest ago, the history they
 * gained, and how far each shard is processed. An entity's changes commit together with its applied seq (R14).
 */
export function startFlush(lane: Lane): void {
  if (lane.flush !== null || isHeld(lane)) return;
  lane.newsSince = null;
  // Of copies: a set visits again what is put back while it is walked through.
  const dirty = [...lane.dirty];
  const max = lane.world.limits.flushMaxEntities;
  const attempts = planAttempts(lane);
  if (!beginFlush(lane, { scope: "lane", dirty, max, touched: lane.touched, attempts })) drain(lane);
}

/** Flushes shards that are being given up, and no others: of sealed ones all that is left. */
export function flushLeaving(lane: Lane, shards: readonly Shard[]): void {
  const sealed = shards.every(isSealed);
  const max = sealed ? Number.POSITIVE_INFINITY : lane.world.limits.flushMaxEntities;
  const dirty = shards.filter((shard) => lane.dirty.has(shard));
  const marks = sealed ? shards.flatMap((shard) => planLastAttempt(lane, shard) ?? []) : [];
  const attempts = marks.length > 0 ? marks : undefined;
  beginFlush(lane, { scope: "leaving", dirty, max, touched: new Set(shards), attempts });
}

/** While a sealed shard waits for its last flush, no other one makes it wait longer. */
function isHeld({ leaving }: Lane): boolean {
  for (const shard of leaving) if (isSealed(shard)) return true;
  return false;
}

interface Scope {
  readonly scope: Flush["scope"];
  /** Shards of which entities are taken, at most `max` of them; and shards whose progress is written. */
  readonly dirty: readonly Shard[];
  readonly max: number;
  readonly touched: ReadonlySet<Shard>;
  readonly attempts: FlushRequest["attempts"];
}

/** Whether there was anything to flush. */
function beginFlush(lane: Lane, { scope, dirty, max, touched, attempts }: Scope): boolean {
  const since = Math.min(lane.now, ...dirty.map(({ dirtySince }) => dirtySince));
  const entities = takeDirty(lane, dirty, max);
  const progress = [...touched].map((shard) => planProgress(lane, shard));
  for (const { shard } of progress) lane.touched.delete(shard);
  const obligations = progress.flatMap(({ shard }) => planObligations(lane, shard));
  const changed = progress.filter(({ shard, progress: next }) => isNews(shard, next));
  const marks = changed.flatMap(({ shard, progress: next }) => passedMark(shard, next.watermark) ?? []);
  const letters = progress.flatMap(({ shard }) => shard.deadLetters.splice(0));
  const refused = progress.flatMap(({ shard }) => shard.refused.splice(0));
  const news = entities.length + changed.length + letters.length + refused.length + obligations.length;
  if (news === 0 && attempts === undefined) return false;
  const taken: Taken = { history: [], links: [], obituaries: [], looks: [], images: [] };
  const rows = entities.map(({ shard, entity }) => takeState(lane, shard, entity, taken));
  const { history, links, obituaries, looks, images } = taken;
  if (images.length > 0) lane.world.counters.add("snapshot_images", images.length);
  const request = {
    order: { lane: lane.index, number: lane.nextFlush++ },
    fences: progress.map(({ shard }) => shard.fence),
    entities: rows,
    history,
    progress: changed.map(({ progress: next }) => next),
    refused,
    deadLetters: letters,
    ...(links.length > 0 && { links }),
    ...(obituaries.length > 0 && { obituaries }),
    ...(looks.length > 0 && { looks }),
    ...(obligations.length > 0 && { obligations }),
    ...(attempts && { attempts }),
    ...(images.length > 0 && { images }),
    ...(marks.length > 0 && { marks }),
  };
  lane.flush = { request, entities, progress: changed, scope, since, startedAt: lane.now, attempts: 0 };
  lane.effects.push({ kind: "flush", request, delayMs: 0 });
  return true;
}

/** Shard by shard: then a shard's watermark moves past all that it has applied, and its rows lie side by side. */
function takeDirty(lane: Lane, shards: readonly Shard[], max: number): { shard: Shard; entity: Entity }[] {
  const taken: { shard: Shard; entity: Entity }[] = [];
  for (const shard of shards) {
    if (taken.length >= max) break;
    const before = taken.length;
    const rest: Entity[] = [];
    for (const entity of shard.dirty) {
      if (taken.length >= max || !isFlushable(entity)) {
        rest.push(entity);
        continue;
      }
      entity.dirtySeq = toSeq(0);
      entity.flushing = entity.applied;
      taken.push({ shard, entity });
    }
    shard.dirty = rest;
    shard.dirtyFrom = rest.reduce((from, { dirtySeq }) => Math.min(from, dirtySeq), Number.POSITIVE_INFINITY);
    lane.dirtyEntities -= taken.length - before;
    lane.touched.add(shard);
    // What did not fit comes first in the next flush; what cannot be flushed yet lets others go first.
    const full = rest.length > 0 && taken.length >= max;
    if (!full) lane.dirty.delete(shard);
    if (rest.length > 0) lane.dirty.add(shard);
    const { handOff } = shard;
    if (handOff !== null) handOff.toDrain = full ? Math.max(0, handOff.toDrain - taken.length + before) : 0;
  }
  return taken;
}

/** A deletion is flushed only when all earlier hooks of the entity have ended (R19). */
function isFlushable({ tombstone, open, mailbox }: Entity): boolean {
  if (!tombstone || open === 0) return true;
  return open === mailbox?.length && mailbox.every((entry) => entry.phase === "waiting");
}

/** What a flush takes of entities beside their records. */
type Taken = {
  readonly [part in "history" | "links" | "obituaries" | "looks" | "images"]: NonNullable<FlushRequest[part]>[number][];
};

function takeState(lane: Lane, { id: shard }: Shard, entity: Entity, taken: Taken): StoredEntity {
  const { eid, created, createdAt, flushing: applied, tombstone } = entity;
  const type = entity.spec.id;
  if (entity.links !== null) {
    const links = takeLinks(lane.world.model, entity);
    if (links !== null) taken.links.push({ shard, type, eid, ...links });
  }
  takeImage(entity, { shard, type, eid }, taken);
  if (entity.history !== null) {
    taken.history.push({ shard, type, eid, seq: entity.historySeq, body: entity.history });
    entity.history = null;
  }
  const lookAt = takeLookAt(entity);
  if (lookAt !== undefined) taken.looks.push({ shard, type, eid, at: lookAt });
  if (tombstone && lane.linkTypes.targets.has(type)) taken.obituaries.push({ shard, type, eid, seq: applied });
  const state = tombstone ? "{}" : writeState(entity);
  const large = tombstone ? undefined : takeLarge(entity);
  return { shard, type, eid, created, createdAt, applied, state, tombstone, large };
}

/** How far the shard will be processed once the flush at hand is durable (R14). */
function planProgress(lane: Lane, shard: Shard): Flush["progress"][number] {
  const limit = shard.dirtyFrom - 1;
  let index = shard.firstOpen;
  for (; index < shard.open.length; index++) {
    const entry = shard.open[index];
    if (entry === undefined || entry.seq > limit) break;
    if (!isSettled(entry) && !owe(lane, shard, entry)) break;
  }
  const waiting = shard.open[index];
  const processed = waiting === undefined ? shard.durableSeq : waiting.seq - 1;
  const watermark = toSeq(Math.min(processed, limit));
  const channels: { channel: string; number: number }[] = [];
  for (const [channel, state] of shard.channels) {
    const number = state.dirty ? lastPassed(state, watermark) : 0;
    if (number > 0) channels.push({ channel, number });
  }
  const delivered = deliveredUpTo(shard);
  return { shard, progress: { shard: shard.id, watermark, delivered, at: shard.lastAt, channels }, passed: index };
}

/** The highest number of a channel whose entry the watermark passes: the checkpoint never runs ahead of it. */
function lastPassed(channel: Channel, watermark: Seq): number {
  return channel.recent?.batches[countPassed(channel, watermark) - 1]?.number ?? 0;
}

function isNews(shard: Shard, next: ShardProgress): boolean {
  if (next.watermark > shard.savedWatermark || next.delivered > shard.savedDelivered) return true;
  return passedMark(shard, next.watermark) !== null;
}

/** The flush is durable: watermarks move, and whoever waited for them is told. */
export function onFlushed(lane: Lane, result: WriteResult): void {
  const { flush } = lane;
  if (flush === null) throw new Error("a flush ended that was not begun");
  if (flush.attempts > 0) lane.effects.push({ kind: "health", problem: null });
  if (result.lost.length > 0) {
    loseShards(lane, flush.request.fences, result.lost);
    retryWithoutLost(lane, flush, new Set(result.lost));
    return;
  }
  lane.flush = null;
  // Not earlier: who looks for them at this news finds them.
  const obituaries = flush.request.obituaries?.length ?? 0;
  if (obituaries > 0) lane.world.counters.add("obituaries_written", obituaries);
  for (const { kind } of flush.request.deadLetters) lane.world.counters.add(`dead_letters/${kind}`);
  for (const { shard, entity } of flush.entities) if (owns(lane, shard)) onEntityFlushed(lane, shard, entity);
  for (const { shard, progress, passed } of flush.progress) {
    if (owns(lane, shard)) moveWatermark(lane, shard, progress, passed);
  }
  if (flush.request.attempts !== undefined && flush.scope === "lane") onMarked(lane);
  lane.lastFlush = { endedAt: lane.now, tookMs: lane.now - flush.startedAt };
}

function onEntityFlushed(lane: Lane, shard: Shard, entity: Entity): void {
  entity.flushed = entity.flushing;
  if (entity.flushed !== entity.applied) return;
  if (!entity.tombstone) return;
  entity.tombstone = false;
  advance(lane, shard, entity);
}

function moveWatermark(lane: Lane, shard: Shard, progress: ShardProgress, passed: number): void {
  shard.watermark = progress.watermark;
  shard.savedWatermark = progress.watermark;
  shard.savedDelivered = progress.delivered;
  shard.firstOpen = passed;
  passBacklog(lane, shard);
  passDeliveries(lane, shard);
  forgetRecorded(shard);
  if (shard.firstOpen > 256 || shard.firstOpen === shard.open.length) {
    shard.open = shard.open.slice(shard.firstOpen);
    shard.firstOpen = 0;
  }
  for (const [name, channel] of shard.channels) if (channel.dirty) passParts(lane, shard, name, channel);
  openCut(lane, shard);
  const waits = (part: WaitingPart): boolean => part.lastSeq > shard.watermark;
  for (const repeat of shard.repeats) if (!waits(repeat)) tellProcessed(lane, shard, repeat);
  shard.repeats = shard.repeats.filter(waits);
}

/** Tells who waits for parts that the watermark has passed, and forgets them. */
function passParts(lane: Lane, shard: Shard, name: string, channel: Channel): void {
  const passed = countPassed(channel, shard.watermark);
  // Of an outbox its deliveries tell, when all that came of a part is done.
  if (channel.recent !== null && !isOutboxChannel(name)) tellPassed(lane, shard, channel.recent, passed);
  forgetPassed(channel, passed);
  channel.dirty = channel.recent !== null;
}

/** What was recorded about entries that the watermark has passed is of no more use, unless entities still owe some. */
function forgetRecorded(shard: Shard): void {
  if (shard.obligations.size > 0) return;
  for (const seq of shard.recorded.results.keys()) if (seq <= shard.watermark) shard.recorded.results.delete(seq);
  for (const seq of shard.recorded.refused) if (seq <= shard.watermark) shard.recorded.refused.delete(seq);
  for (const key of shard.recorded.answers) {
    if (Number(key.slice(0, key.indexOf("\t"))) <= shard.watermark) shard.recorded.answers.delete(key);
  }
}

function retryWithoutLost(lane: Lane, flush: Flush, lost: ReadonlySet<ShardId>): void {
  const { request } = flush;
  const stays = ({ shard }: { shard: ShardId }) => !lost.has(shard);
  const next = {
    order: { lane: lane.index, number: lane.nextFlush++ },
    fences: request.fences.filter(stays),
    entities: request.entities.filter(stays),
    history: request.history.filter(stays),
    progress: request.progress.filter(stays),
    refused: request.refused.filter(stays),
    deadLetters: request.deadLetters.filter(stays),
    ...(request.links && { links: request.links.filter(stays) }),
    ...(request.obituaries && { obituaries: request.obituaries.filter(stays) }),
    ...(request.looks && { looks: request.looks.filter(stays) }),
    ...(request.obligations && { obligations: request.obligations.filter(stays) }),
    ...(request.attempts && { attempts: request.attempts.filter(stays) }),
    ...(request.images && { images: request.images.filter(stays) }),
    ...(request.marks && { marks: request.marks.filter(stays) }),
  };
  if (next.fences.length === 0) {
    lane.flush = null;
    return;
  }
  const entities = flush.entities.filter(({ shard }) => stays({ shard: shard.id }));
  const progress = flush.progress.filter(({ shard }) => stays({ shard: shard.id }));
  lane.flush = { ...flush, request: next, entities, progress, attempts: 0 };
  lane.effects.push({ kind: "flush", request: next, delayMs: 0 });
}

/** The same rows again: `applied < new` and the keys make a repeat harmless. */
export function onFlushFailed(lane: Lane, error: StarlingError): void {
  const { flush } = lane;
  if (flush === null) throw new Error("a flush failed that was not begun");
  flush.attempts++;
  lane.effects.push({ kind: "health", problem: error });
  lane.effects.push({ kind: "flush", request: flush.request, delayMs: storeDelayMs(flush.attempts) });
}

/** A lane that has had nothing to append for so long, and for longer than usual, is quiet: its flushes need not wait. */
const quietMs = 100;
const quietPaces = 3;
/** What fewer entities changed is written the sooner the fewer they are, but not at once. */
const fewEntities = 200;
const soonMs = 50;
/** So many intervals a flush rests at most: one that took long, as PostgreSQL was away, says nothing of the next one. */
const restIntervals = 4;
/** How long a timer sleeps at most: what it waits for may come earlier than planned. */
const napMs = 200;

/**
 * When the next flush is due. What few entities changed is written soon, unless more of them come fast. Under load what changed
 * waits for the interval, so that changes of one entity coalesce, and is written by then if there is time for it: flushes take
 * no more than half of the time that appends leave. So a lane that can keep up writes everything within the interval, and one
 * that cannot gives most of PostgreSQL to appends, and coalesces more; the more waits for the watermark, the less flushes wait.
 */
function flushDueAt(lane: Lane, newsSince: number): number {
  const { limits } = lane.world;
  const { begunAt, everyMs } = lane.pace;
  const quietAt = begunAt + Math.min(Math.max(quietMs, quietPaces * everyMs), limits.flushIntervalMs);
  const idle = lane.commit === null && lane.waiting.size === 0 && quietAt <= lane.now;
  if (idle || needsMark(lane) || lane.status === "closing") return lane.now;
  const ease = Math.max(0, 1 - (2 * lane.backlogBytes) / limits.backlogMaxBytes);
  if (lane.dirtyEntities < fewEntities) {
    return newsSince + Math.max(soonMs, (ease * limits.flushIntervalMs * lane.dirtyEntities) / fewEntities);
  }
  const { tookMs, endedAt } = lane.lastFlush;
  const share = flushShare(lane.pace);
  const restMs = Math.min((tookMs * (1 - share)) / share, restIntervals * limits.flushIntervalMs);
  const [oldest] = lane.dirty;
  const ripeAt = (oldest?.dirtySince ?? newsSince) + ease * Math.max(0, limits.flushIntervalMs - tookMs);
  return Math.max(newsSince + soonMs, endedAt + ease * restMs, ripeAt);
}

/** Sets the timer of the next flush, if there is something to flush. */
export function planNextFlush(lane: Lane): void {
  if (lane.flush !== null || isHeld(lane)) return;
  if (lane.dirtyEntities === 0 && lane.touched.size === 0 && !needsMark(lane)) return drain(lane);
  lane.newsSince ??= lane.now;
  const wakeAt = Math.min(flushDueAt(lane, lane.newsSince), lane.now + napMs);
  if (lane.flushWakeAt !== null && lane.flushWakeAt <= wakeAt) return;
  lane.flushWakeAt = wakeAt;
  lane.effects.push({ kind: "flush-timer", afterMs: Math.max(0, wakeAt - lane.now) });
}

/** A timer has ended: flushes if it is time, at the end of the step looks again. */
export function onFlushTimer(lane: Lane): void {
  lane.flushWakeAt = null;
  if (lane.flush === null && flushDueAt(lane, lane.newsSince ?? lane.now) <= lane.now) startFlush(lane);
}

function drain(lane: Lane): void {
  if (lane.status !== "closing" || lane.commit !== null || lane.waiting.size > 0 || lane.flush !== null) return;
  if (lane.leaving.size > 0) return;
  lane.effects.push({ kind: "drained" });
}
