import type { Hook } from "../../modules/hook.ts";
import { type Seq, toSeq } from "../../proto/ids.ts";
import type { Entity } from "./entity.ts";
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
  if (isAnswered(recorded, entry.seq, onEntityCreation.get(type))) return true;
  const ofType = onNewAttr.get(type);
  const first = entry.lastSeq - task.datapoints.length + 1;
  return task.datapoints.some(({ spec }, index) => isAnswered(recorded, toSeq(first + index), ofType?.get(spec.id)));
}

/**
 * Whether the creation by a replayed task was refused, though nothing says so: a later task has answers to its creation of the
 * same life. Allowed now, it would be created twice (R18).
 */
export function wasRefused(lane: Lane, { recorded }: Shard, { mailbox, spec }: Entity, entry: Entry): boolean {
  if (!entry.replayed || recorded.answers.size === 0 || mailbox === null) return false;
  const hooks = lane.world.hooks.onEntityCreation.get(spec.id);
  for (const { task, seq } of mailbox) {
    if (task === null || seq <= entry.seq) continue;
    // What may end the life that this task would have begun.
    if (task.delete || task.link?.kind === "expire") return false;
    if (isAnswered(recorded, seq, hooks)) return true;
  }
  return false;
}

/** Ends a task with the refusal of its creation. */
export function refuseCreation(lane: Lane, shard: Shard, entry: Entry): void {
  entry.phase = "ended";
  const { seq, entity } = entry;
  shard.refused.push({ shard: shard.id, type: entity?.spec.id ?? "", eid: entity?.eid ?? "", seq });
  lane.world.counters.add("creation_refused");
}

function isAnswered({ answers }: Shard["recorded"], seq: Seq, hooks: readonly Hook[] | undefined): boolean {
  return hooks?.some(({ id }) => answers.has(answerKey(seq, id))) ?? false;
}
