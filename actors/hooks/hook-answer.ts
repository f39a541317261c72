import { messageAttr, stateAttr } from "../../modules/behaviour.ts";
import { checkSend } from "../../modules/behaviour-model.ts";
import { checkDatapointOf, findEntity } from "../../modules/check-datapoint.ts";
import { checkTask } from "../../modules/check-task.ts";
import type { CheckedTask } from "../../modules/datapoint.ts";
import { isPlainObject } from "../../modules/json-value.ts";
import type { Model } from "../../modules/model.ts";
import { StarlingError, toStarlingError } from "../../proto/starling-error.ts";
import type { HookOutcome } from "./hook-outcome.ts";

/** Bounds on what one run of a hook may return (R4). */
export interface AnswerLimits {
  readonly tasksMax: number;
  readonly bytesMax: number;
}

const none: readonly CheckedTask[] = Object.freeze([]);

/** The tasks and messages that a hook returned, checked. Raises HOOK_FAILED with the task and the rule it breaks. */
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

/** What a behaviour returned, checked. Raises HOOK_FAILED with the part and the rule it breaks. */
export function checkMessageAnswer(
  model: Model,
  limits: AnswerLimits,
  type: string,
  returned: unknown,
): Extract<HookOutcome, { kind: "message" }> {
  const answer = returned ?? {};
  const form = "{ state?, reply?, tasks?, sends? }, or nothing";
  if (!isPlainObject(answer)) {
    throw new StarlingError("HOOK_FAILED", `returned ${nameOf(answer)}: a behaviour returns ${form}`);
  }
  const strange = Object.keys(answer).find((key) => !answerKeys.includes(key));
  if (strange !== undefined)
    throw new StarlingError("HOOK_FAILED", `returned '${strange}': a behaviour returns ${form}`);
  const { state, reply = null, tasks, sends } = answer;
  const change = {
    kind: "change",
    state: state === undefined ? null : jsonOf(model, type, stateAttr, state),
    reply: jsonOf(model, type, messageAttr, reply),
  } as const;
  const lists = [tasks, sends].map((list) => list ?? none);
  const wrong = lists.find((list) => !Array.isArray(list));
  if (wrong !== undefined) throw new StarlingError("HOOK_FAILED", `returned ${nameOf(wrong)} as 'tasks' or 'sends'`);
  return { kind: "message", change, tasks: checkAnswer(model, limits, lists.flat()) };
}

const answerKeys = ["state", "reply", "tasks", "sends"];

/** States and replies are what messages are: any JSON of bounded size. */
function jsonOf(model: Model, type: string, attr: string, v: unknown): string {
  const what = attr === stateAttr ? "state" : "reply";
  try {
    return checkDatapointOf(findEntity(model, type), "", { attr, v }).json;
  } catch (error) {
    const { code, message } = toStarlingError(error);
    throw new StarlingError("HOOK_FAILED", `returned a wrong ${what}: ${message} (${code})`, { cause: error });
  }
}

function check(model: Model, task: unknown, index: number): CheckedTask {
  try {
    if (isPlainObject(task) && task.to !== undefined) return checkSend(model, task.to, task.message);
    const checked = checkTask(model, task);
    if (checked.entity.actor === undefined) return checked;
    throw new StarlingError("INVALID_ARGUMENT", "an actor is addressed by { to, message }");
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
