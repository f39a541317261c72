import type { Seq } from "../../proto/ids.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import type { Entry } from "./entry.ts";
import type { Lane, LaneMessage } from "./lane.ts";
import { createReplies, type MessageResult, type ReplyListener } from "./message-result.ts";
import { isSealed, type Shard } from "./shard.ts";

/**
 * Who waits for what messages come to. A result is told when it is durable, so that what an asker has heard stays true. The
 * last ones are kept for who asks late; of all others the log tells, as long as it goes back so far.
 */
export function onAwaitReply(lane: Lane, message: Extract<LaneMessage, { kind: "await-reply" }>): void {
  const { seq, listener, untilMs } = message;
  const shard = lane.shards.get(message.shard);
  if (shard === undefined || isSealed(shard)) {
    const error = new StarlingError("MOVED", `this node does not own shard ${message.shard}`);
    return tell(lane, listener, error);
  }
  const known = shard.replies?.recent.get(seq);
  if (known !== undefined || !isOpen(shard, seq)) return tell(lane, listener, known ?? null);
  shard.replies ??= createReplies();
  const { replies } = shard;
  if (replies.waiters >= waitersMax) {
    return tell(lane, listener, new StarlingError("BUSY", `${waitersMax} wait for replies in shard ${shard.id}`));
  }
  replies.waiters++;
  const others = replies.waiting.get(seq);
  if (others === undefined) replies.waiting.set(seq, [{ listener, untilMs }]);
  else others.push({ listener, untilMs });
}

/** Who may wait in one shard. */
const waitersMax = 10_000;
/** Results kept for one shard, without states, and the length of their replies together. */
const recentMax = 64;
const recentMaxChars = 64 * 1024;

function isOpen(shard: Shard, seq: Seq): boolean {
  const { open, firstOpen } = shard;
  let low = firstOpen;
  for (let high = open.length; low < high; ) {
    const middle = (low + high) >>> 1;
    if ((open[middle]?.seq ?? 0) < seq) low = middle + 1;
    else high = middle;
  }
  const is = (entry: Entry | undefined): boolean => entry?.seq === seq && entry.phase !== "ended";
  if (is(open[low])) return true;
  for (const { entries } of shard.obligations) if (entries.some(is)) return true;
  return false;
}

/** A message has come to its end; what it came to is durable. */
export function tellReply(lane: Lane, shard: Shard, seq: Seq, result: MessageResult): void {
  shard.replies ??= createReplies();
  const { replies } = shard;
  const waiting = replies.waiting.get(seq) ?? [];
  replies.waiting.delete(seq);
  replies.waiters -= waiting.length;
  for (const { listener } of waiting) tell(lane, listener, result);
  keep(shard, seq, result);
}

function keep({ replies }: Shard, seq: Seq, result: MessageResult): void {
  if (replies === null || lengthOf(result) > recentMaxChars) return;
  const { recent } = replies;
  recent.set(seq, result.kind === "change" ? { ...result, state: null } : result);
  replies.chars += lengthOf(result);
  for (const [oldest, old] of recent) {
    if (recent.size <= recentMax && replies.chars <= recentMaxChars) return;
    recent.delete(oldest);
    replies.chars -= lengthOf(old);
  }
}

function lengthOf(result: MessageResult): number {
  return result.kind === "change" ? result.reply.length : result.message.length;
}

/** The shard leaves: who waits asks its next owner. */
export function refuseReplies(lane: Lane, { replies }: Shard, error: StarlingError): void {
  if (replies === null) return;
  for (const waiting of replies.waiting.values()) for (const { listener } of waiting) tell(lane, listener, error);
  replies.waiting.clear();
  replies.waiters = 0;
}

/** Forgets who has waited too long: nobody listens any more. */
export function expireReplies(lane: Lane, { replies }: Shard): void {
  if (replies === null || replies.waiters === 0) return;
  for (const [seq, waiting] of replies.waiting) {
    const left = waiting.filter(({ untilMs }) => untilMs > lane.now);
    replies.waiters -= waiting.length - left.length;
    if (left.length > 0) replies.waiting.set(seq, left);
    else replies.waiting.delete(seq);
  }
}

function tell(lane: Lane, listener: ReplyListener, result: MessageResult | StarlingError | null): void {
  lane.effects.push({ kind: "result", listener, result });
}
