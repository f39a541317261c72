import type { CheckedTask } from "../../modules/datapoint.ts";
import type { Hook } from "../../modules/hook.ts";
import type { Seq, ShardId } from "../../proto/ids.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import { type AnswerBlock, linesOfBlock } from "../log/segment.ts";
import { cursorOf, type Entry } from "./entry.ts";
import type { Lane } from "./lane.ts";
import { placeOf } from "./letter.ts";
import { failureOf, type MessageResult } from "./message-result.ts";
import { type PartTask, taskFrom } from "./part.ts";
import type { Shard } from "./shard.ts";

/** What a hook returned, split by shard: one unit, recorded by one append (R15). */
export function createAnswer(
  lane: Lane,
  shard: Shard,
  of: { cause: Seq; hook: string; depth: number },
  tasks: readonly (CheckedTask | PartTask)[],
): AnswerBlock {
  const own: PartTask[] = [];
  const others: { readonly target: ShardId; readonly tasks: PartTask[] }[] = [];
  const { cause, hook, depth } = of;
  let ordinal = 0;
  for (const task of tasks) {
    const derived = taskFrom(task, { shard: shard.id, seq: cause, hook, ordinal, depth });
    lane.world.traces?.carry(task, derived);
    const target = lane.world.shardOf(task.entity.id, task.eid);
    const known = target === shard.id ? own : others.find((other) => other.target === target)?.tasks;
    if (known === undefined) others.push({ target, tasks: [derived] });
    else known.push(derived);
    ordinal++;
  }
  return { kind: "answer", cause, hook, depth, own, others };
}

/** One unit (R15): the new state, the reply and all tasks; or that the message failed, which changes nothing. */
export function recordMessage(
  lane: Lane,
  shard: Shard,
  entry: Entry,
  { id: hook }: Hook,
  result: MessageResult,
  tasks: readonly CheckedTask[],
): void {
  const depth = (entry.task?.cause?.depth ?? 0) + 1;
  const of = { cause: entry.seq, hook, depth };
  entry.phase = "recording";
  if (tasks.length > 0 && depth > lane.world.limits.chainMaxDepth) {
    const error = new StarlingError("CHAIN_TOO_DEEP", `${hook} derives tasks at depth ${depth}`);
    return appendAnswer(lane, shard, entry, { ...createAnswer(lane, shard, of, []), result: failureOf(error) });
  }
  appendAnswer(lane, shard, entry, { ...createAnswer(lane, shard, of, tasks), result });
}

/** Puts an answer on its way into the log; `counter` counts its tasks. */
export function appendAnswer(
  lane: Lane,
  shard: Shard,
  entry: Entry,
  block: AnswerBlock,
  counter = "derived_tasks",
): void {
  entry.unrecorded++;
  const pending = { lines: linesOfBlock(block), block, entry, place: placeOf(entry) };
  shard.blocks.push(entry.obligation === null ? pending : { ...pending, cursor: cursorOf(entry) });
  lane.waiting.add(shard);
  let tasks = block.own.length;
  for (const other of block.others) tasks += other.tasks.length;
  lane.world.counters.add(counter, tasks);
}
