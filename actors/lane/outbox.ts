import { type Seq, toSeq } from "../../proto/ids.ts";
import type { OutboxTasks } from "../log/segment.ts";
import { bytesOfTasks } from "./backlog.ts";
import type { WaitingPart } from "./channel.ts";
import type { Lane } from "./lane.ts";
import type { Delivery } from "./outbox-state.ts";
import type { Part } from "./part.ts";
import type { Shard } from "./shard.ts";
import { tell } from "./tell.ts";

/**
 * The outbox of a shard: lines of its own log that carry tasks for other shards (R12). Towards each target it is a channel
 * whose numbers are the lines' seqs. `delivered` in the shard's progress is the place up to which every line is durable at
 * its target; an owner that takes the shard sends again what stands above, in order, and the target knows repeats by number.
 *
 * What outside senders have caused, others have to do (R13):
 *
 *  X1  A line counts against the outside door of its own shard until it is done: durable at its target, its tasks ended with
 *      all their hooks and passed by the watermark there, and everything done that they derived, here or elsewhere. So a
 *      shard that does not get on closes the outside doors of all shards whose work it is, over any number of hops.
 *  X2  A line is itself never refused by a bound, and to be done it waits for no door, only for what came of it: a tree,
 *      `chainMaxDepth` deep, as no task descends from itself. So nothing waits in a circle, and doors open again.
 *  X3  These counts live in memory. An owner that takes a shard counts the lines that it sends again, no others; of a part
 *      that comes back to a target's new owner that one says "done" when its watermark has passed it.
 *
 * Why not less: a line that counts until it is durable bounds nothing while its target lives; "the target's watermark has
 * passed it" alone neither sees an obligation (R16) nor a third shard behind the target.
 */
export function sendOutbox(
  lane: Lane,
  shard: Shard,
  line: OutboxTasks,
  seq: Seq,
  delivery: Delivery | null = null,
): void {
  const { outbox } = shard;
  const predecessor = outbox.last.get(line.target) ?? null;
  outbox.last.set(line.target, seq);
  outbox.sent.push({ seq, status: "sent" });
  const tasks = line.tasks.length;
  const bytes = bytesOfTasks(line.tasks);
  outbox.undone.set(seq, { target: line.target, since: lane.now, tasks, bytes, delivery });
  outbox.tasks += tasks;
  outbox.bytes += bytes;
  lane.outboxBytes += bytes;
  if (delivery !== null) delivery.open++;
  const part: Part = {
    kind: "part",
    position: seq,
    shard: line.target,
    channel: `s:${shard.id}`,
    number: seq,
    predecessor,
    hash: "",
    tasks: line.tasks,
    rejections: [],
    bytes,
    tick: shard.tick,
  };
  lane.effects.push({ kind: "deliver", shard, part });
}

/** Lines are durable at their targets. */
export function onDelivered(lane: Lane, shard: Shard, seqs: readonly number[]): void {
  const { outbox } = shard;
  for (const seq of seqs) {
    const line = outbox.sent[findSent(shard, toSeq(seq))];
    if (line !== undefined) line.status = "delivered";
  }
  while (outbox.sent[outbox.first]?.status === "delivered") outbox.first++;
  if (outbox.first > 1000 && outbox.first * 2 > outbox.sent.length) {
    outbox.sent = outbox.sent.slice(outbox.first);
    outbox.first = 0;
  }
  if (lane.shards.get(shard.id) === shard) lane.touched.add(shard);
}

/** Index of a line among those on their way: they are in order of seq. */
function findSent(shard: Shard, seq: Seq): number {
  const { sent, first } = shard.outbox;
  let low = first;
  let high = sent.length - 1;
  while (low <= high) {
    const middle = (low + high) >> 1;
    const at = sent[middle]?.seq ?? 0;
    if (at === seq) return middle;
    if (at < seq) low = middle + 1;
    else high = middle - 1;
  }
  return -1;
}

/** Lines are done: they no longer count, nor hold up what they came of. */
export function onLinesDone(lane: Lane, shard: Shard, seqs: readonly number[]): void {
  if (lane.shards.get(shard.id) !== shard) return;
  const { outbox } = shard;
  for (const seq of seqs) {
    const line = outbox.undone.get(seq);
    if (line === undefined) continue;
    outbox.undone.delete(seq);
    outbox.tasks -= line.tasks;
    outbox.bytes -= line.bytes;
    lane.outboxBytes -= line.bytes;
    if (line.delivery !== null) countOut(lane, shard, line.delivery);
  }
}

/** A part of another shard's outbox is durable here; null: nobody waits for its end. */
export function createDelivery({ outbox }: Shard, part: WaitingPart, tasks: number): Delivery | null {
  const { position, listener, lastSeq } = part;
  if (listener === null) return null;
  const delivery = { position, listener, open: tasks, lastSeq };
  outbox.taken.add(delivery);
  if (tasks === 0) outbox.ended.push(delivery);
  return delivery;
}

/** Tasks for the own shard came of it; the answer that holds them ends at `lastSeq`. */
export function addToDelivery(delivery: Delivery, tasks: number, lastSeq: Seq): void {
  delivery.open += tasks;
  delivery.lastSeq = lastSeq;
}

/** A task or a line that came of it is done. */
export function countOut(lane: Lane, shard: Shard, delivery: Delivery): void {
  delivery.open--;
  if (delivery.open > 0) return;
  if (delivery.lastSeq <= shard.watermark) tellDone(lane, shard, delivery);
  else shard.outbox.ended.push(delivery);
}

/** Tells the senders of what the watermark has passed. */
export function passDeliveries(lane: Lane, shard: Shard): void {
  const { outbox, watermark } = shard;
  if (outbox.ended.length === 0) return;
  const waiting: Delivery[] = [];
  for (const delivery of outbox.ended) {
    if (delivery.lastSeq <= watermark) tellDone(lane, shard, delivery);
    else waiting.push(delivery);
  }
  outbox.ended = waiting;
}

function tellDone(lane: Lane, { outbox }: Shard, delivery: Delivery): void {
  outbox.taken.delete(delivery);
  tell(lane, delivery.listener, { kind: "processed", position: delivery.position, obligations: 0 });
}

/** The shard is lost: nothing of its outbox counts any more. Returns the parts whose senders still wait. */
export function forgetOutbox(lane: Lane, { outbox }: Shard): readonly Delivery[] {
  lane.outboxBytes -= outbox.bytes;
  return [...outbox.taken];
}
