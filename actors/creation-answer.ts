import type { Hook } from "../modules/hook.ts";
import { type Seq, toSeq } from "../proto/ids.ts";
import type { Entry } from "./entry.ts";
import type { Lane } from "./lane.ts";
import type { PartTask } from "./part.ts";
import { answerKey, type Shard } from "./shard.ts";

/**
 * Whether a replayed task has answers that follow from its entity's creation: then it was allowed, whatever a hook would
 * say of it now, or these answers would have no cause (R18).
 */
export function wasAllowed(lane: Lane, { recorded }: Shard, entry: Entry, task: PartTask): boolean {
  if (!entry.replayed || recorded.answers.size === 0) return false;
  const { onEntityCreation, onNewAttr } = lane.world.hooks;
  const type = task.entity.id;
  const isAnswered = (seq: Seq, hooks: readonly Hook[] | undefined): boolean =>
    hooks?.some(({ id }) => recorded.answers.has(answerKey(seq, id))) ?? false;
  if (isAnswered(entry.seq, onEntityCreation.get(type))) return true;
  const ofType = onNewAttr.get(type);
  const first = entry.lastSeq - task.datapoints.length + 1;
  return task.datapoints.some(({ spec }, index) => isAnswered(toSeq(first + index), ofType?.get(spec.id)));
}
