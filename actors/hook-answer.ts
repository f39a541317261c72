import { checkTask } from "../modules/check-task.ts";
import type { CheckedTask } from "../modules/datapoint.ts";
import type { Model } from "../modules/model.ts";
import { StarlingError, toStarlingError } from "../proto/starling-error.ts";

/** Bounds on what one run of a hook may return (R4). */
export interface AnswerLimits {
  readonly tasksMax: number;
  readonly bytesMax: number;
}

const none: readonly CheckedTask[] = Object.freeze([]);

/** The tasks that a hook returned, checked. Raises HOOK_FAILED with the task and the rule it breaks. */
export function checkAnswer(model: Model, limits: AnswerLimits, returned: unknown): readonly CheckedTask[] {
  if (returned === null || returned === undefined) return none;
  if (!Array.isArray(returned)) {
    throw new StarlingError(
      "HOOK_FAILED",
      `returned ${nameOf(returned)}: a hook returns an array of tasks, or nothing`,
    );
  }
  if (returned.length === 0) return none;
  if (returned.length > limits.tasksMax) {
    throw new StarlingError("HOOK_FAILED", `returned ${returned.length} tasks: at most ${limits.tasksMax} are allowed`);
  }
  let bytes = 0;
  return Array.from(returned as unknown[], (task, index) => {
    const checked = check(model, task, index);
    bytes += bytesOf(checked);
    if (bytes > limits.bytesMax) {
      throw new StarlingError("HOOK_FAILED", `returned more than ${limits.bytesMax} bytes, at task ${index}`);
    }
    return checked;
  });
}

function check(model: Model, task: unknown, index: number): CheckedTask {
  try {
    return checkTask(model, task);
  } catch (error) {
    const { code, message } = toStarlingError(error);
    throw new StarlingError("HOOK_FAILED", `returned a wrong task, number ${index}: ${message} (${code})`, {
      cause: error,
    });
  }
}

function bytesOf(task: CheckedTask): number {
  let bytes = Buffer.byteLength(task.eid);
  for (const { json } of task.datapoints) bytes += Buffer.byteLength(json);
  return bytes;
}

function nameOf(value: unknown): string {
  return typeof value === "object" ? "an object" : `a ${typeof value}`;
}
