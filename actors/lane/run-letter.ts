import { checkTask } from "../../modules/check-task.ts";
import type { CheckedTask, DerivedTask } from "../../modules/datapoint.ts";
import type { Hook, HookTable, RecordView } from "../../modules/hook.ts";
import type { Model } from "../../modules/model.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import { HookCall } from "../hooks/hook-call.ts";
import { allHooks } from "../hooks/hook-lane.ts";
import type { HookOutcome } from "../hooks/hook-outcome.ts";
import type { StoredDeadLetter } from "../store/store.ts";
import { taskFrom } from "./part.ts";

export interface LetterWorld {
  readonly model: Model;
  readonly hooks: HookTable;
  readonly runHook: (hook: Hook, call: HookCall) => HookOutcome | Promise<HookOutcome>;
  readonly getRecord: (type: string, eid: string) => Promise<RecordView | null>;
}

/**
 * The tasks that the replay of a dead letter gives (R20): of an unapplied task the task itself, of a message that failed the
 * message, since it changed nothing; of a hook what it answers now,
 * called alone under its original cause. Throws when the hook fails again, and the letter stays open.
 */
export async function runLetter(letter: StoredDeadLetter, world: LetterWorld): Promise<readonly CheckedTask[]> {
  const task = readLetterTask(letter, world.model);
  if (letter.kind === "unapplied") return [task];
  const hook = allHooks(world.hooks).find(({ id }) => id === letter.hook);
  if (hook === undefined) {
    throw new StarlingError("NOT_FOUND", `no module registers the hook ${letter.hook} any more; discard the letter`);
  }
  if (hook.kind === "on_message") return [task];
  const record = await world.getRecord(letter.type, letter.eid);
  const datapoint = hook.kind === "on_new_attr" ? (task.datapoints[0] ?? null) : null;
  const at = { shard: letter.shard, seq: letter.seq, now: letter.at };
  const outcome = await world.runHook(
    hook,
    new HookCall(at, hook.id, { task: taskFrom(task, null), datapoint, record }),
  );
  if (outcome.kind === "failed") throw outcome.error;
  if (outcome.kind === "decision") {
    if (outcome.failed !== undefined) throw outcome.failed;
    return [];
  }
  return outcome.tasks;
}

function readLetterTask(letter: StoredDeadLetter, model: Model): CheckedTask {
  try {
    return checkTask(model, JSON.parse(letter.task) as DerivedTask);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new StarlingError("MODEL_CHANGED", `the task of dead letter ${letter.id} does not fit the model: ${why}`);
  }
}
