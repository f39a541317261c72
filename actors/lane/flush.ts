import { type Seq, toSeq } from "../../proto/ids.ts";
import type { StarlingError } from "../../proto/starling-error.ts";
import { openCut, passedMark } from "../snapshots/tick-mark.ts";
import type { Fence, FlushRequest, ShardProgress, WriteResult } from "../store/store.ts";
import { isOutboxChannel } from "./admission.ts";
import { leaveBacklog, passBacklog } from "./backlog.ts";
import type { Channel, WaitingPart } from "./channel.ts";
import { loseShards, owns } from "./commit.ts";
import type { Entity } from "./entity.ts";
import { isSettled } from "./entry.ts";
import { flushDueAt } from "./flush-due.ts";
import { takeRows } from "./flush-rows.ts";
import { halve, withoutShards } from "./flush-shards.ts";
import { leaveKeptBack } from "./forget-shard.ts";
import { type Flush, type Lane, storeDelayMs } from "./lane.ts";
import { owe, planObligations } from "./obligation.ts";
import { passDeliveries } from "./outbox.ts";
import { needsMark, onMarked, planAttempts, planLastAttempt } from "./poison.ts";
import { advance } from "./processing.ts";
import { countPassed, forgetPassed } from "./recent-parts.ts";
import { deliveredUpTo, isSealed, type Shard } from "./shard.ts";
import { tellPassed, tellProcessed } from "./tell.ts";

/**
 * Write-behind: a flush writes, in one transaction, the records of the entities that changed longest ago, the history they
 * gained, and how far each shard is processed. An entity's changes commit together with its applied seq (R14).
 *
 * At most one flush is in PostgreSQL. Under load the next one is packed meanwhile, so that PostgreSQL need not wait for it. It counts
 * what the first one writes as written: so it is sent only when that is durable, and without shards that were lost since, as the first
 * may have gone without them.
 *
 * What PostgreSQL refuses, it refuses each time (R4). Such a flush is divided until the shard at fault stands alone; that one is
 * kept back, so that it does not stop the others: nothing more of it is flushed here. Its log goes on until its bound is reached,
 * and whoever owns it next, this node after a restart too, does again what stands there.
 */
export function startFlush(lane: Lane): void {
  if (lane.flush !== null || isHeld(lane)) return;
  const flush = packLane(lane, planAttempts(lane));
  if (flush === null) return drain(lane);
  send(lane, flush);
}

/** Packs the next flush behind the one in hand. Marks of a gate wait for one of their own; shards that leave go first. */
function packNextFlush(lane: Lane): void {
  lane.packed = packLane(lane, undefined);
}

function isBehind(lane: Lane): boolean {
  if (lane.packed !== null || lane.leaving.size > 0 || needsMark(lane)) return false;
  return lane.dirtyEntities > lane.world.limits.flushMaxEntities;
}

function packLane(lane: Lane, attempts: FlushRequest["attempts"]): Flush | null {
  lane.newsSince = null;
  for (const shard of [...lane.dirty, ...lane.touched]) if (shard.keptBack !== null) passOver(lane, shard);
  // Of copies: a set visits again what is put back while it is walked through.
  const dirty = [...lane.dirty];
  const flush = packFlush(lane, { scope: "lane", dirty, room: roomOf(lane), touched: lane.touched, attempts });
  const isLeft = lane.dirtyEntities > 0 || lane.touched.size > 0;
  lane.flushRestsTo = flush === null && isLeft ? lane.now + napMs : 0;
  return flush;
}

/** Flushes shards that are being given up, and no others: of sealed ones all that is left. */
export function flushLeaving(lane: Lane, shards: readonly Shard[]): void {
  const sealed = shards.every(isSealed);
  const room = sealed ? boundless : roomOf(lane);
  const dirty = shards.filter((shard) => lane.dirty.has(shard));
  const marks = sealed ? shards.flatMap((shard) => planLastAttempt(shard) ?? []) : [];
  const attempts = marks.length > 0 ? marks : undefined;
  const flush = packFlush(lane, { scope: "leaving", dirty, room, touched: new Set(shards), attempts });
  if (flush !== null) send(lane, flush);
}

/** While a sealed shard waits for its last flush, no other one makes it wait longer. */
function isHeld({ leaving }: Lane): boolean {
  for (const shard of leaving) if (isSealed(shard)) return true;
  return false;
}

interface Scope {
  readonly scope: Flush["scope"];
  /** Shards of which entities are taken as far as there is room; and shards whose progress is written. */
  readonly dirty: readonly Shard[];
  readonly room: Room;
  readonly touched: ReadonlySet<Shard>;
  readonly attempts: FlushRequest["attempts"];
}

/** For entities, and for their bytes in memory: what PostgreSQL is sent is of about that size. One entity always has room. */
interface Room {
  readonly entities: number;
  readonly bytes: number;
}

const boundless: Room = { entities: Number.POSITIVE_INFINITY, bytes: Number.POSITIVE_INFINITY };

function roomOf({ world }: Lane): Room {
  return { entities: world.limits.flushMaxEntities, bytes: world.limits.flushMaxBytes };
}

/** Null: there is nothing to flush. */
function packFlush(lane: Lane, { scope, dirty, room, touched, attempts }: Scope): Flush | null {
  const since = Math.min(lane.now, ...dirty.map(({ dirtySince }) => dirtySince));
  const entities = takeDirty(lane, dirty, room);
  const progress = [...touched].map((shard) => planProgress(lane, shard));
  for (const { shard } of progress) lane.touched.delete(shard);
  const obligations = progress.flatMap(({ shard }) => planObligations(lane, shard));
  const changed = progress.filter(({ shard, progress: next }) => isNews(shard, next));
  const marks = changed.flatMap(({ shard, progress: next }) => passedMark(shard, next.watermark) ?? []);
  const letters = progress.flatMap(({ shard }) => shard.deadLetters.splice(0));
  const refused = progress.flatMap(({ shard }) => shard.refused.splice(0));
  const news = entities.length + changed.length + letters.length + refused.length + obligations.length;
  if (news === 0 && attempts === undefined) return null;
  const { rows, history, links, obituaries, looks, images } = takeRows(lane, entities);
  if (images.length > 0) lane.world.counters.add("snapshot_images", images.length);
  for (const { shard, progress: next } of changed) {
    shard.savedWatermark = next.watermark;
    shard.savedDelivered = next.delivered;
  }
  const request = {
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
  return { request, entities, progress: changed, scope, since, startedAt: lane.now, attempts: 0 };
}

/** The order is that of sending: a flush whose attempt comes late writes nothing behind a later one. */
function send(lane: Lane, flush: Flush): void {
  const request = { ...flush.request, order: { lane: lane.index, number: lane.nextFlush++ } };
  lane.flush = { ...flush, request, startedAt: lane.now, attempts: 0 };
  lane.effects.push({ kind: "flush", request, delayMs: 0 });
}

/** Nothing is in PostgreSQL any more: what is left of a divided flush goes there, then what is packed behind it. */
function sendNext(lane: Lane): void {
  lane.flush = null;
  const rest = lane.divided.shift() ?? lane.packed;
  if (rest === lane.packed) lane.packed = null;
  if (rest !== null) send(lane, rest);
}

/** Shard by shard: then a shard's watermark moves past all that it has applied, and its rows lie side by side. */
function takeDirty(lane: Lane, shards: readonly Shard[], room: Room): Flush["entities"][number][] {
  const taken: Flush["entities"][number][] = [];
  let bytes = 0;
  const isFull = (): boolean => taken.length >= room.entities || bytes >= room.bytes;
  for (const shard of shards) {
    if (isFull()) break;
    const before = taken.length;
    const rest: Entity[] = [];
    for (const entity of shard.dirty) {
      if (isFull() || !isFlushable(entity)) {
        rest.push(entity);
        continue;
      }
      bytes += entity.bytes;
      entity.dirtySeq = toSeq(0);
      entity.flushing = entity.applied;
      taken.push({ shard, entity, applied: entity.applied });
    }
    shard.dirty = rest;
    shard.dirtyFrom = rest.reduce((from, { dirtySeq }) => Math.min(from, dirtySeq), Number.POSITIVE_INFINITY);
    lane.dirtyEntities -= taken.length - before;
    lane.touched.add(shard);
    // What did not fit comes first in the next flush; what cannot be flushed yet lets others go first.
    const full = rest.length > 0 && isFull();
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

/** How far the shard will be processed once the flush at hand is durable (R14). */
function planProgress(lane: Lane, shard: Shard): Flush["progress"][number] {
  const limit = shard.dirtyFrom - 1;
  let index = shard.firstOpen;
  // What a flush on its way passes is as good as passed.
  while ((shard.open[index]?.seq ?? Number.POSITIVE_INFINITY) <= shard.savedWatermark) index++;
  for (; index < shard.open.length; index++) {
    const entry = shard.open[index];
    if (entry === undefined || entry.seq > limit) break;
    if (!isSettled(entry) && !owe(lane, shard, entry)) break;
  }
  const waiting = shard.open[index];
  const processed = waiting === undefined ? shard.durableSeq : waiting.seq - 1;
  const watermark = toSeq(Math.max(shard.savedWatermark, Math.min(processed, limit)));
  const channels: { channel: string; number: number }[] = [];
  for (const [channel, state] of shard.busy) {
    const number = lastPassed(state, watermark);
    if (number > 0) channels.push({ channel, number });
  }
  const delivered = deliveredUpTo(shard);
  return { shard, progress: { shard: shard.id, watermark, delivered, at: shard.lastAt, channels } };
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
  if (flush.attempts > 0) lane.effects.push({ kind: "health", work: "flush", problem: null });
  if (result.lost.length > 0) {
    loseShards(lane, flush.request.fences, result.lost);
    const left = withoutShards(flush, new Set(result.lost));
    return left === null ? sendNext(lane) : send(lane, left);
  }
  lane.lastFlush = { endedAt: lane.now, tookMs: lane.now - flush.startedAt };
  sendNext(lane);
  // Not earlier: who looks for them at this news finds them.
  const obituaries = flush.request.obituaries?.length ?? 0;
  if (obituaries > 0) lane.world.counters.add("obituaries_written", obituaries);
  for (const { kind } of flush.request.deadLetters) lane.world.counters.add(`dead_letters/${kind}`);
  for (const { shard, entity, applied } of flush.entities) {
    if (owns(lane, shard)) onEntityFlushed(lane, shard, entity, applied);
  }
  for (const { shard, progress } of flush.progress) if (owns(lane, shard)) moveWatermark(lane, shard, progress);
  if (flush.request.attempts !== undefined && flush.scope === "lane") onMarked(lane);
}

function onEntityFlushed(lane: Lane, shard: Shard, entity: Entity, applied: Seq): void {
  entity.flushed = applied;
  if (entity.flushed !== entity.applied) return;
  if (!entity.tombstone) return;
  entity.tombstone = false;
  advance(lane, shard, entity);
}

function moveWatermark(lane: Lane, shard: Shard, progress: ShardProgress): void {
  shard.watermark = progress.watermark;
  while ((shard.open[shard.firstOpen]?.seq ?? Number.POSITIVE_INFINITY) <= shard.watermark) shard.firstOpen++;
  passBacklog(lane, shard);
  passDeliveries(lane, shard);
  forgetRecorded(shard);
  if (shard.firstOpen > 256 || shard.firstOpen === shard.open.length) {
    shard.open = shard.open.slice(shard.firstOpen);
    shard.firstOpen = 0;
  }
  for (const [name, channel] of shard.busy) passParts(lane, shard, name, channel);
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
  if (channel.recent === null) shard.busy.delete(name);
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

/** The same rows again: `applied < new` and the keys make a repeat harmless. */
export function onFlushFailed(lane: Lane, error: StarlingError): void {
  const { flush } = lane;
  if (flush === null) throw new Error("a flush failed that was not begun");
  if (error.code === "STORE_REFUSED") return onFlushRefused(lane, flush, error);
  flush.attempts++;
  lane.effects.push({ kind: "health", work: "flush", problem: error });
  lane.effects.push({ kind: "flush", request: flush.request, delayMs: storeDelayMs(flush.attempts) });
}

/** The data are at fault (R4): fewer of them, or, if it is one shard's, that one no more. */
function onFlushRefused(lane: Lane, flush: Flush, error: StarlingError): void {
  if (flush.attempts > 0) lane.effects.push({ kind: "health", work: "flush", problem: null });
  const halves = halve(flush);
  if (halves === null) {
    for (const fence of flush.request.fences) keepBack(lane, fence, { error, since: flush.since });
    return sendNext(lane);
  }
  lane.divided.unshift(halves[1]);
  send(lane, halves[0]);
}

function keepBack(lane: Lane, { shard: id, epoch }: Fence, keptBack: NonNullable<Shard["keptBack"]>): void {
  const shard = lane.shards.get(id);
  if (shard === undefined || shard.epoch !== epoch) return;
  lane.world.counters.add("shards_kept_back");
  lane.effects.push({ kind: "kept-back", shard: id, error: keptBack.error });
  leaveBacklog(lane, shard);
  shard.keptBack = keptBack;
  lane.packed &&= withoutShards(lane.packed, new Set([id]));
  if (shard.handOff !== null) leaveKeptBack(lane, shard);
}

/** What changed in a shard that is kept back is not written: it stays in memory, as changed. */
function passOver(lane: Lane, shard: Shard): void {
  lane.dirtyEntities -= shard.dirty.length;
  shard.dirty = [];
  lane.dirty.delete(shard);
  lane.touched.delete(shard);
}

/** How long a timer sleeps at most: what it waits for may come earlier than planned. */
const napMs = 200;

/** Sets the timer of the next flush, if there is something to flush, or to pack behind the one in hand. */
export function planNextFlush(lane: Lane): void {
  if (isHeld(lane)) return;
  if (lane.flush !== null) return planPacking(lane);
  if (lane.dirtyEntities === 0 && lane.touched.size === 0 && !needsMark(lane)) return drain(lane);
  lane.newsSince ??= lane.now;
  const wakeAt = Math.min(nextLookAt(lane, lane.newsSince), lane.now + napMs);
  if (lane.flushWakeAt !== null && lane.flushWakeAt <= wakeAt) return;
  lane.flushWakeAt = wakeAt;
  lane.effects.push({ kind: "flush-timer", afterMs: Math.max(0, wakeAt - lane.now) });
}

/** What waits may be such that nothing of it can be flushed yet: that is not looked at all the time. */
function nextLookAt(lane: Lane, newsSince: number): number {
  const dueAt = flushDueAt(lane, newsSince);
  return needsMark(lane) || lane.status === "closing" ? dueAt : Math.max(dueAt, lane.flushRestsTo);
}

/**
 * A flush of a thousand entities is a megabyte, which PostgreSQL takes in pieces, each after a turn of the event loop; packing the
 * next one takes ten turns' time at once.
 */
const sendingMs = 8;

/** When the flush in hand has gone off. While a timer runs, that one looks. */
function planPacking(lane: Lane): void {
  if (lane.flush === null || lane.flushWakeAt !== null || !isBehind(lane)) return;
  lane.newsSince ??= lane.now;
  if (nextLookAt(lane, lane.newsSince) > lane.now) return;
  lane.flushWakeAt = Math.max(lane.now, lane.flush.startedAt + sendingMs);
  lane.effects.push({ kind: "flush-timer", afterMs: lane.flushWakeAt - lane.now });
}

/** A timer has ended: flushes, or packs, if it is time; at the end of the step looks again. */
export function onFlushTimer(lane: Lane): void {
  lane.flushWakeAt = null;
  if (nextLookAt(lane, lane.newsSince ?? lane.now) > lane.now) return;
  if (lane.flush === null) startFlush(lane);
  else if (isBehind(lane) && lane.now >= lane.flush.startedAt + sendingMs) packNextFlush(lane);
}

function drain(lane: Lane): void {
  if (lane.status !== "closing" || lane.commit !== null || lane.waiting.size > 0 || lane.flush !== null) return;
  if (lane.leaving.size > 0) return;
  lane.effects.push({ kind: "drained" });
}
