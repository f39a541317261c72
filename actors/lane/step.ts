import { unreachable } from "../../proto/unreachable.ts";
import { endTicks, learnTick, passTick } from "../snapshots/tick-mark.ts";
import { admit } from "./admission.ts";
import { answerLookUps } from "./answer-repeat.ts";
import { onCommitFailed, onCommitted, startCommit } from "./commit.ts";
import { onFlushed, onFlushFailed, onFlushTimer, planNextFlush, startFlush } from "./flush.ts";
import { dropShards } from "./forget-shard.ts";
import { beginHandOff, onGraceOver, refuseLetter, tendHandOffs } from "./hand-off.ts";
import type { Effect, Lane, LaneMessage } from "./lane.ts";
import { onLetterReplayed } from "./letter-replay.ts";
import { onDelivered, onLinesDone } from "./outbox.ts";
import { tendGate } from "./poison.ts";
import { onHookEnded } from "./processing.ts";
import { ownShards } from "./replay.ts";
import { onAwaitReply } from "./replies.ts";
import { onGet, onLoaded, onLoadFailed, startLoads, sweep } from "./residency.ts";

/**
 * The protocol's one door: a message changes the lane, and what is to be done in the world comes back. The lane is changed in
 * place rather than copied: it holds every resident entity.
 */
export function step(lane: Lane, message: LaneMessage): Effect[] {
  lane.effects = [];
  lane.told.all.clear();
  lane.told.last = null;
  lane.now = lane.world.monotonic();
  take(lane, message);
  tendHandOffs(lane);
  tendGate(lane);
  startCommit(lane);
  startLoads(lane);
  planNextFlush(lane);
  const { effects } = lane;
  lane.effects = [];
  return effects;
}

function take(lane: Lane, message: LaneMessage): void {
  switch (message.kind) {
    case "own":
      ownShards(lane, message.shards, message.replay);
      if (message.reply !== undefined) lane.effects.push({ kind: "owned", reply: message.reply });
      return;
    case "give-up":
      return beginHandOff(lane, message);
    case "grace-over":
      return onGraceOver(lane, message.shard);
    case "drop":
      return dropShards(lane, message.shards);
    case "offer":
      return admit(lane, message.offers);
    case "looked-up":
      return answerLookUps(lane, message);
    case "committed":
      return onCommitted(lane, message.result);
    case "commit-failed":
      return onCommitFailed(lane, message.error);
    case "loaded":
      return onLoaded(lane, message.wanted, message.found);
    case "load-failed":
      return onLoadFailed(lane, message.wanted, message.error);
    case "hook-ended":
      return onHookEnded(lane, message.shard, message.entry, message.run, message.outcome);
    case "delivered":
      return onDelivered(lane, message.shard, message.seqs);
    case "lines-done":
      return onLinesDone(lane, message.shard, message.seqs);
    case "flush-due":
      return onFlushTimer(lane);
    case "flushed":
      return onFlushed(lane, message.result);
    case "flush-failed":
      return onFlushFailed(lane, message.error);
    case "get":
      return onGet(lane, message);
    case "await-reply":
      return onAwaitReply(lane, message);
    case "replay-letter":
      if (refuseLetter(lane, message)) return;
      return onLetterReplayed(lane, message.letter, message.tasks, message.reply);
    case "learn-tick":
      return learnTick(lane, message.tick);
    case "end-ticks":
      return endTicks(lane, message.tick);
    case "pass-tick":
      return passTick(lane, message.pass);
    case "sweep":
      return sweep(lane);
    case "close":
      lane.status = "closing";
      return startFlush(lane);
    default:
      return unreachable(message);
  }
}
