import type { CheckedTask } from "../../modules/datapoint.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import { linesOfBlock } from "../log/segment.ts";
import type { StoredDeadLetter } from "../store/store.ts";
import { createAnswer } from "./answer-block.ts";
import type { Lane, LetterReply } from "./lane.ts";

/** Appends what a letter's replay gave, and closes the letter, in one transaction. */
export function onLetterReplayed(
  lane: Lane,
  letter: StoredDeadLetter,
  tasks: readonly CheckedTask[],
  reply: LetterReply,
): void {
  const shard = lane.shards.get(letter.shard);
  if (shard === undefined) {
    const error = new StarlingError("MOVED", `this node does not own shard ${letter.shard}`);
    lane.effects.push({ kind: "closed", reply, error });
    return;
  }
  const block = createAnswer(lane, shard, { cause: letter.seq, hook: letter.hook, depth: 1 }, tasks);
  shard.blocks.push({ lines: linesOfBlock(block), block, entry: null, place: null, closing: { id: letter.id, reply } });
  lane.waiting.add(shard);
}
