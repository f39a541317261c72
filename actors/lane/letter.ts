import type { CheckedTask } from "../../modules/datapoint.ts";
import { toStorableText } from "../../modules/value-limits.ts";
import type { Seq } from "../../proto/ids.ts";
import type { StarlingError } from "../../proto/starling-error.ts";
import type { LoggedTask } from "../log/line.ts";
import type { NewDeadLetter } from "../store/store.ts";
import type { Entry } from "./entry.ts";
import type { Shard } from "./shard.ts";

/**
 * A hook that failed for good: it stands as a dead letter, and the watermark may pass (R14). What PostgreSQL refuses of its answer
 * failed, too; by then others may run, so `place` says where it was called.
 */
export function letterOfHook(
  shard: Shard,
  entry: Entry,
  of: { readonly seq: Seq; readonly hook: string; readonly place?: number | null },
  error: StarlingError,
): void {
  const { task, at } = entry;
  if (task === null) return;
  const { seq, hook, place = placeOf(entry) } = of;
  const datapoint = place === null ? undefined : task.datapoints[place];
  // A hook of one datapoint is replayed with that datapoint alone.
  const called = datapoint === undefined ? task : { ...task, datapoints: [datapoint] };
  shard.deadLetters.push(createLetter(shard, { seq, at, kind: "hook", hook }, error, called));
}

/** Which of a task's datapoints its hooks are called with now; null: the task. */
export function placeOf({ phase, datapoint }: Entry): number | null {
  return phase === "attributes" ? datapoint : null;
}

/** A derived task that is not to be: `hook` names it too. */
export function letterOfTask(
  shard: Shard,
  { at }: Entry,
  of: { readonly seq: Seq; readonly hook: string },
  error: StarlingError,
  task: CheckedTask,
): void {
  shard.deadLetters.push(createLetter(shard, { ...of, at, kind: "unapplied" }, error, task));
}

/** A logged task that the model of now does not take: a dead letter, never a crash. */
export function letterOfMisfit(
  shard: Shard,
  seq: Seq,
  at: number,
  { type, eid }: Pick<LoggedTask, "type" | "eid">,
  { code, message }: StarlingError,
  hook = "",
): void {
  shard.deadLetters.push({
    shard: shard.id,
    seq,
    kind: "unapplied",
    hook,
    type,
    eid,
    code,
    error: textOfError({ message }),
    at,
    task: JSON.stringify({ type, eid }),
  });
}

const errorMaxLength = 4000;

/** What a hook's error says may be any text: one that PostgreSQL refuses would hold up the flushes of the whole lane. */
export function textOfError({ message }: Pick<StarlingError, "message">): string {
  return toStorableText(message.slice(0, errorMaxLength));
}

/** A dead letter that holds its task, so that it can be replayed when the log is gone. */
function createLetter(
  shard: Shard,
  of: Pick<NewDeadLetter, "seq" | "at" | "kind" | "hook">,
  error: StarlingError,
  task: CheckedTask,
): NewDeadLetter {
  return {
    ...of,
    shard: shard.id,
    type: task.entity.id,
    eid: task.eid,
    code: error.code,
    error: textOfError(error),
    task: writeTaskJson(task),
  };
}

function writeTaskJson(task: CheckedTask): string {
  const datapoints = task.datapoints.map((d) => {
    const times = `"t1":${d.t1},"t2":${d.t2},"c":${d.c},"src":${JSON.stringify(d.src)}`;
    return `{"attr":"${d.attr}","v":${d.json},${times}}`;
  });
  const ttl = task.ttlTokens === null ? "" : `,"ttlTokens":${JSON.stringify(task.ttlTokens)}`;
  const head = `"type":"${task.entity.id}","eid":${JSON.stringify(task.eid)}`;
  return `{${head},"delete":${task.delete}${ttl},"datapoints":[${datapoints.join(",")}]}`;
}
