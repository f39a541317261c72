import type { CheckedTask } from "../../modules/datapoint.ts";
import { toStorableText } from "../../modules/value-limits.ts";
import type { Seq } from "../../proto/ids.ts";
import type { StarlingError } from "../../proto/starling-error.ts";
import type { LoggedTask } from "../log/line.ts";
import type { AnswerBlock } from "../log/segment.ts";
import type { NewDeadLetter } from "../store/store.ts";
import type { Entry } from "./entry.ts";
import type { Shard } from "./shard.ts";

/** A hook that failed for good: it stands as a dead letter, and the watermark may pass (R14). */
export function letterOfHook(shard: Shard, entry: Entry, seq: Seq, hook: string, error: StarlingError): void {
  if (entry.task === null) return;
  const datapoint = entry.task.datapoints[entry.datapoint];
  const only = entry.phase === "attributes" && datapoint !== undefined;
  // A hook of one datapoint is replayed with that datapoint alone.
  const task = only ? { ...entry.task, datapoints: [datapoint] } : entry.task;
  shard.deadLetters.push(createLetter(shard, { seq, at: entry.at, kind: "hook", hook }, error, task));
}

/**
 * An answer that PostgreSQL refuses is its hook's failure. Others may run by then, so what it was called with is found by its cause;
 * of a task's first datapoint that is the cause of the task, too.
 */
export function letterOfAnswer(
  shard: Shard,
  entry: Entry,
  of: Pick<AnswerBlock, "cause" | "hook">,
  error: StarlingError,
): void {
  const { task, seq, lastSeq, at } = entry;
  if (task === null) return;
  const { cause, hook } = of;
  const datapoint = cause > seq ? task.datapoints[cause - lastSeq + task.datapoints.length - 1] : undefined;
  const called = datapoint === undefined ? task : { ...task, datapoints: [datapoint] };
  shard.deadLetters.push(createLetter(shard, { seq: cause, at, kind: "hook", hook }, error, called));
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
