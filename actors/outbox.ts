import { type Seq, toSeq } from "../proto/ids.ts";
import type { Lane } from "./lane.ts";
import type { Part } from "./part.ts";
import type { OutboxTasks } from "./segment.ts";
import type { Shard } from "./shard.ts";

/**
 * The outbox of a shard: lines of its own log that carry tasks for other shards (R12). Towards each target it is a channel
 * whose numbers are the lines' seqs. `delivered` in the shard's progress is the place up to which every line is durable at
 * its target; an owner that takes the shard sends again what stands above, in order, and the target knows repeats by number.
 */
export function sendOutbox(lane: Lane, shard: Shard, line: OutboxTasks, seq: Seq): void {
  const { outbox } = shard;
  const predecessor = outbox.last.get(line.target) ?? null;
  outbox.last.set(line.target, seq);
  outbox.sent.push({ seq, status: "sent" });
  const part: Part = {
    kind: "part",
    position: 0,
    shard: line.target,
    channel: `s:${shard.id}`,
    number: seq,
    predecessor,
    hash: "",
    tasks: line.tasks,
    rejections: [],
    bytes: 200 * line.tasks.length,
  };
  lane.effects.push({ kind: "deliver", shard, part });
}

/** A line is durable at its target. */
export function onDelivered(lane: Lane, shard: Shard, number: number): void {
  const { outbox } = shard;
  const index = findSent(shard, toSeq(number));
  const line = outbox.sent[index];
  if (line === undefined) return;
  line.status = "delivered";
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
