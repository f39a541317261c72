import type { CheckedDatapoint, CheckedTask } from "../../modules/datapoint.ts";
import type { Hook } from "../../modules/hook.ts";
import { type Seq, toSeq } from "../../proto/ids.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import { HookCall } from "../hooks/hook-call.ts";
import type { HookOutcome } from "../hooks/hook-outcome.ts";
import { beginLife, dropTokens, endsLife, prolongLife } from "../lifetimes/lifetime.ts";
import { applyUnlink, clearLinks, noteLinks } from "../links/entity-links.ts";
import { keepImage } from "../snapshots/tick-image.ts";
import { appendAnswer, createAnswer, recordMessage } from "./answer-block.ts";
import { refuseCreation, wasAllowed, wasRefused } from "./creation-answer.ts";
import { applyDatapoint, applyState, clearEntity, type Entity } from "./entity.ts";
import { viewOf } from "./entity-view.ts";
import { causeOf, createEntry, type Entry, isSettled, reuseEntry } from "./entry.ts";
import { createGate, giveUp, isPoisoned } from "./gate.ts";
import type { Lane } from "./lane.ts";
import { letterOfHook, letterOfTask } from "./letter.ts";
import { errorOf, failureOf, type MessageResult } from "./message-result.ts";
import { resume } from "./obligation.ts";
import { countOut } from "./outbox.ts";
import type { Delivery } from "./outbox-state.ts";
import type { PartTask } from "./part.ts";
import { tellReply } from "./replies.ts";
import { answerKey, entityOf, type Shard } from "./shard.ts";

/**
 * The processing of tasks by entities, in DP³'s order (reference 4.4): on_task_start; for an entity that does not exist
 * allow_entity_creation and on_entity_creation; the record changes; on_new_attr for each datapoint. A hook that does not
 * end at once suspends its entity, never another one.
 */
export function takeUp(lane: Lane, shard: Shard, task: PartTask, { seq, lastSeq, at, delivery }: Taken): void {
  const { spare } = lane;
  const entry = spare === null ? createEntry(task, seq, lastSeq, at) : reuseEntry(spare, task, seq, lastSeq, at);
  lane.spare = null;
  entry.delivery = delivery;
  lane.world.traces?.takenUp(task, { shard: shard.id, seq });
  deliver(lane, shard, entry);
  // What ended at once is known by nobody: of a datapoint nothing remains but what it changed.
  if (isSettled(entry)) lane.spare = entry;
  else shard.open.push(entry);
}

interface Taken {
  readonly seq: Seq;
  readonly lastSeq: Seq;
  readonly at: number;
  /** Of what it is a part (R13). */
  readonly delivery: Delivery | null;
}

/** Gives an entry to its entity. */
export function deliver(lane: Lane, shard: Shard, entry: Entry): void {
  const { task } = entry;
  if (task === null) {
    entry.phase = "ended";
    return;
  }
  const entity = entityOf(shard, task.entity, task.eid, task.eidValue);
  entry.entity = entity;
  entity.open++;
  entity.usedAt = lane.now;
  if (entity.mailbox !== null) {
    entity.mailbox.push(entry);
  } else if (entity.status === "loading") {
    entity.mailbox = [entry];
    lane.toLoad.push({ shard, entity });
  } else if (isOpenTo(entity, entry) && runPhases(lane, shard, entity, entry)) {
    settle(lane, shard, entry);
  } else {
    entity.mailbox = [entry];
  }
}

/** A deleted entity takes nothing up until its end is flushed (R19). */
function isOpenTo(entity: Entity, entry: Entry): boolean {
  return !entity.tombstone || entry.phase !== "waiting";
}

/** Runs an entity's tasks until its mailbox is empty or a hook has to be waited for. */
export function advance(lane: Lane, shard: Shard, entity: Entity): void {
  if (entity.status === "loading") return;
  for (;;) {
    const entry = entity.mailbox?.[0];
    if (entry === undefined || entry.running !== null) return;
    if (!isOpenTo(entity, entry) || !runPhases(lane, shard, entity, entry)) return;
    entity.mailbox?.shift();
    if (entity.mailbox?.length === 0) entity.mailbox = null;
    settle(lane, shard, entry);
  }
}

/** Counts an entry out of its entity once nothing of it is open. */
export function settle(lane: Lane, shard: Shard, entry: Entry): void {
  if (!isSettled(entry)) return;
  lane.touched.add(shard);
  if (entry.entity !== null) entry.entity.open--;
  if (entry.delivery !== null) countOut(lane, shard, entry.delivery);
  if (entry.task !== null) lane.world.traces?.settled(entry.task);
  // The watermark may be a flush away: what waits for it should be small.
  entry.task = null;
}

/** Whether the entry came to its end; false: a hook runs. */
function runPhases(lane: Lane, shard: Shard, entity: Entity, entry: Entry): boolean {
  const { hooks } = lane.world;
  const { task } = entry;
  if (task === null) return true;
  const type = entity.spec.id;
  for (;;) {
    switch (entry.phase) {
      case "waiting":
        begin(lane, shard, entity, entry, task);
        // A life that is over ends like a deletion.
        if (entry.task !== task) return runPhases(lane, shard, entity, entry);
        break;
      case "start":
        if (!runHooks(lane, shard, entry, hooks.onTaskStart)) return false;
        next(entry, !task.delete && creates(entity, entry) ? "allow" : "apply");
        break;
      case "allow":
        // A creation that is stored already was allowed then, as was one that has been answered to (R18).
        if (!entity.exists && !wasAllowed(lane, shard, entry, task)) {
          if (wasRefused(lane, shard, entity, entry)) refuseCreation(lane, shard, entry);
          else if (!runHooks(lane, shard, entry, hooks.allowEntityCreation.get(type))) return false;
        }
        // A refusal has ended the entry; the answers write `phase`, which the compiler cannot see.
        if ((entry.phase as string) === "ended") break;
        next(entry, "creation");
        break;
      case "creation":
        if (!runHooks(lane, shard, entry, hooks.onEntityCreation.get(type))) return false;
        next(entry, "apply");
        break;
      case "apply":
        apply(lane, shard, entity, entry, task);
        next(entry, task.delete || task.link ? "ended" : "attributes");
        break;
      case "attributes":
        if (!runAttributeHooks(lane, shard, entity, entry, task)) return false;
        next(entry, "ended");
        break;
      case "message":
        if (!runMessage(lane, shard, entity, entry, task)) return false;
        next(entry, "ended");
        break;
      case "recording":
        return false;
      case "ended":
        if (!task.link) lane.tasksProcessed.value++;
        return true;
    }
  }
}

function begin(lane: Lane, shard: Shard, entity: Entity, entry: Entry, task: PartTask): void {
  const held = entry.obligation?.held;
  if (isOver(shard, entity, entry)) entry.phase = "ended";
  else if (entity.spec.actor !== undefined) entry.phase = "message";
  else if (endsLife(lane, entity, entry, task)) entry.phase = "start";
  else if (task.link) entry.phase = "apply";
  else if (held?.entry !== entry) entry.phase = "start";
  else {
    resume(lane.world.hooks, held);
    if (entry.phase === "attributes" || entry.phase === "ended") apply(lane, shard, entity, entry, task);
  }
}

function next(entry: Entry, phase: Entry["phase"]): void {
  entry.phase = phase;
  entry.hook = 0;
}

/** Whether a replayed task has nothing left to do: refused, or of a life of the entity that has ended (R18, R19). */
function isOver(shard: Shard, entity: Entity, entry: Entry): boolean {
  if (!entry.replayed) return false;
  if (shard.recorded.refused.has(entry.seq)) return true;
  return entry.lastSeq <= entity.applied && (entry.seq < entity.created || !entity.exists);
}

function creates(entity: Entity, entry: Entry): boolean {
  return entity.created === entry.seq || (!entity.exists && entry.lastSeq > entity.applied);
}

function apply(lane: Lane, shard: Shard, entity: Entity, entry: Entry, task: PartTask): void {
  if (entry.lastSeq <= entity.applied) return;
  const { model, counters } = lane.world;
  const before = entity.bytes;
  if (shard.cut !== null) keepImage(shard.cut, entity, entry);
  if (task.delete) {
    if (!entity.exists) return;
    clearEntity(entity);
    if (lane.linkTypes.sources.has(entity.spec.id)) clearLinks(entity);
    entity.tombstone = true;
    if (entity.spec.lifetime.type === "ttl") entity.looks = "changed";
    counters.add("record_removed");
  } else if (task.link?.kind === "expire") {
    if (!dropTokens(entity, entry.at)) return;
  } else if (task.link) {
    if (task.link.kind !== "unlink" || !applyUnlink(model, entity, task.link)) return;
    counters.add("links_forgotten");
  } else {
    if (!entity.exists) create(lane, entity, entry);
    prolongLife(entity, task, entry.at);
    let seq = entry.lastSeq - task.datapoints.length + 1;
    for (const datapoint of task.datapoints) {
      if (datapoint.spec.relation !== null) noteLinks(model, entity, datapoint, entry.at);
      applyDatapoint(entity, datapoint, toSeq(seq++), entry.at);
    }
  }
  changed(lane, shard, entity, entry, before);
}

function changed(lane: Lane, shard: Shard, entity: Entity, entry: Entry, bytesBefore: number): void {
  shard.residentBytes += entity.bytes - bytesBefore;
  entity.applied = entry.lastSeq;
  entry.needsFlush = entry.lastSeq;
  if (entity.dirtySeq === 0) markDirty(lane, shard, entity, entry.seq);
}

/**
 * Whether a message came to its end; false: `receive` runs, or what it returned is not durable. Only then the state changes
 * and the next message of the actor begins: so no flush holds a state whose answer could be lost, and the state changes once
 * though `receive` may run again. Of what the watermark has not passed the log still has every answer.
 */
function runMessage(lane: Lane, shard: Shard, entity: Entity, entry: Entry, task: PartTask): boolean {
  const { results } = shard.recorded;
  const recorded = entry.replayed ? results.get(entry.seq) : undefined;
  if (recorded !== undefined) {
    results.delete(entry.seq);
    endMessage(lane, shard, entry, recorded);
    return true;
  }
  const ended = runHooks(lane, shard, entry, lane.world.hooks.onMessage?.get(entity.spec.id), task.datapoints[0]);
  // What the hook answered has written `phase`, which the compiler cannot see.
  return ended && (entry.phase as string) !== "recording";
}

/** What a message came to is durable: the state changes, and who asked is told. */
export function endMessage(lane: Lane, shard: Shard, entry: Entry, result: MessageResult): void {
  const { entity, seq } = entry;
  if (entity === null) return;
  entry.phase = "ended";
  if (result.kind === "change" && result.state !== null && entry.lastSeq > entity.applied) {
    const before = entity.bytes;
    if (!entity.exists) create(lane, entity, entry);
    applyState(entity, result.state, entry.lastSeq, entry.at);
    changed(lane, shard, entity, entry, before);
  }
  if (result.kind === "failure") {
    const hook = lane.world.hooks.onMessage?.get(entity.spec.id)?.[0]?.id ?? "";
    const known = entry.replayed && shard.recorded.answers.has(answerKey(seq, hook));
    if (!known) letterOfHook(shard, entry, { seq, hook }, errorOf(result));
  }
  tellReply(lane, shard, seq, result);
}

function markDirty(lane: Lane, shard: Shard, entity: Entity, seq: Seq): void {
  entity.dirtySeq = seq;
  shard.dirty.push(entity);
  shard.dirtyFrom = Math.min(shard.dirtyFrom, seq);
  lane.dirtyEntities++;
  if (shard.dirty.length > 1) return;
  shard.dirtySince = lane.now;
  lane.dirty.add(shard);
}

function create(lane: Lane, entity: Entity, entry: Entry): void {
  entity.exists = true;
  entity.created = entry.seq;
  entity.createdAt = entry.at;
  beginLife(entity, entry.at);
  lane.world.counters.add("record_created");
}

function runAttributeHooks(lane: Lane, shard: Shard, entity: Entity, entry: Entry, task: PartTask): boolean {
  const ofType = lane.world.hooks.onNewAttr.get(entity.spec.id);
  if (ofType === undefined) return true;
  while (entry.datapoint < task.datapoints.length) {
    const datapoint = task.datapoints[entry.datapoint];
    if (datapoint !== undefined && !runHooks(lane, shard, entry, ofType.get(datapoint.spec.id), datapoint))
      return false;
    entry.datapoint++;
    entry.hook = 0;
  }
  return true;
}

/** Runs hooks from the entry's cursor on; false when one did not end at once. */
function runHooks(
  lane: Lane,
  shard: Shard,
  entry: Entry,
  hooks: readonly Hook[] | undefined,
  datapoint: CheckedDatapoint | null = null,
): boolean {
  if (hooks === undefined) return true;
  while (entry.hook < hooks.length) {
    const hook = hooks[entry.hook];
    if (hook === undefined || entry.task === null || entry.entity === null) return true;
    const seq = causeOf(entry);
    if (isHeld(shard, entry, seq)) {
      if (entry.heldAbove !== null) lane.gate ??= createGate();
      lane.gate?.parked.set(entry.entity, shard);
      return false;
    }
    if (entry.replayed && shard.recorded.answers.has(answerKey(seq, hook.id))) {
      entry.hook++;
      continue;
    }
    if (entry.replayed && isPoisoned(lane.gate, shard, seq)) {
      lane.world.counters.add("poisoned_hooks");
      take(lane, shard, entry, hook, giveUp(hook));
      continue;
    }
    const record = entry.entity.exists ? viewOf(entry.entity, datapoint) : null;
    const call = new HookCall({ shard: shard.id, seq, now: entry.at }, hook.id, {
      task: entry.task,
      datapoint,
      record,
    });
    const outcome = lane.world.runHook(hook, call);
    if (outcome instanceof Promise) {
      suspend(lane, shard, entry, hook, outcome);
      return false;
    }
    take(lane, shard, entry, hook, outcome);
    if (entry.phase === "ended") return true;
  }
  return true;
}

/** Of what is replayed each entry has its own window (R17); of a sealed shard no hook begins. */
function isHeld({ openTo }: Shard, { heldAbove }: Entry, seq: Seq): boolean {
  return seq > (openTo < 0 || heldAbove === null ? openTo : heldAbove);
}

function suspend(lane: Lane, shard: Shard, entry: Entry, hook: Hook, outcome: Promise<HookOutcome>): void {
  const run = lane.nextRun++;
  const { post, monotonic } = lane.world;
  entry.running = { id: run, hook, since: monotonic(), sinceSeq: shard.durableSeq };
  // The runner answers failures as outcomes; a rejection is a bug, and ends as the hook's failure all the same.
  void outcome
    .catch(
      (error: unknown): HookOutcome => ({
        kind: "failed",
        error: new StarlingError("INTERNAL", String(error), { cause: error }),
        attempts: 1,
      }),
    )
    .then((ended) => post({ kind: "hook-ended", shard, entry, run, outcome: ended }));
}

/** An asynchronous hook has ended: its entity goes on. */
export function onHookEnded(lane: Lane, shard: Shard, entry: Entry, run: number, outcome: HookOutcome): void {
  const { running } = entry;
  if (running?.id !== run || lane.shards.get(shard.id) !== shard || entry.entity === null) return;
  entry.running = null;
  take(lane, shard, entry, running.hook, outcome);
  advance(lane, shard, entry.entity);
}

/** Takes a hook's outcome: the cursor moves, and what it answered is on its way into the log. */
function take(lane: Lane, shard: Shard, entry: Entry, hook: Hook, outcome: HookOutcome): void {
  const cause = causeOf(entry);
  entry.hook++;
  switch (outcome.kind) {
    case "answer":
      if (outcome.tasks.length > 0) recordAnswer(lane, shard, entry, hook, cause, outcome.tasks);
      return;
    case "decision":
      if (outcome.failed !== undefined) letterOfHook(shard, entry, { seq: cause, hook: hook.id }, outcome.failed);
      if (!outcome.allowed) refuseCreation(lane, shard, entry);
      return;
    case "message":
      return recordMessage(lane, shard, entry, hook, outcome.change, outcome.tasks);
    case "failed":
      lane.world.counters.add("module_error");
      if (hook.kind === "on_message") return recordMessage(lane, shard, entry, hook, failureOf(outcome.error), []);
      letterOfHook(shard, entry, { seq: cause, hook: hook.id }, outcome.error);
      return;
  }
}

function recordAnswer(
  lane: Lane,
  shard: Shard,
  entry: Entry,
  hook: Hook,
  cause: Seq,
  tasks: readonly CheckedTask[],
): void {
  const depth = (entry.task?.cause?.depth ?? 0) + 1;
  if (depth > lane.world.limits.chainMaxDepth) {
    const error = new StarlingError("CHAIN_TOO_DEEP", `${hook.id} derives tasks at depth ${depth}`);
    for (const [ordinal, task] of tasks.entries())
      letterOfTask(shard, entry, { seq: cause, hook: `${hook.id}#${ordinal}` }, error, task);
    return;
  }
  appendAnswer(lane, shard, entry, createAnswer(lane, shard, { cause, hook: hook.id, depth }, tasks));
}
