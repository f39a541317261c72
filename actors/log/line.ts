import type { CheckedDatapoint } from "../../modules/datapoint.ts";
import { readEid } from "../../modules/eid.ts";
import type { AttributeSpec, EntitySpec, Model } from "../../modules/model.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import type { PartTask } from "../lane/part.ts";
import { readLinkChange, writeLinkChange } from "../links/link-change.ts";
import { type LineText, lengthOf, put, putPlain, putUnit } from "./line-text.ts";
import { putTime, timeText } from "./number-text.ts";

/**
 * The lines of a segment's body: one line for every seq, fields separated by tabs. The first field is the kind:
 *
 *   d  type eid attr src t1 t2 c json      first datapoint of a task
 *   +  type eid attr src t1 t2 c json      a further datapoint of the same task
 *   t  type eid json                       TTL tokens; `+` lines may follow
 *   x  type eid                            the entity is deleted
 *   l  type eid json                       what another entity's link means to it (`link-change.ts`)
 *   o  target cause hook depth ordinals content   outbox: tasks for another shard (`content`: their lines)
 *   r  state reply failure                 what a message came to: JSON texts, empty for none (`message-result.ts`)
 *   m  tick                                the mark of a tick (`tick-mark.ts`)
 *   n                                      nothing: a part or an answer without tasks still takes its seq
 *
 * eid, src and hook are escaped (`\t`, `\n`, `\\`); src is empty for null and `\e` for the empty text; t1 and t2 are Unix
 * ms, or empty. JSON text never holds a raw tab or newline.
 */
export const outboxJoint = "\x1c";

export { createLineText } from "./line-text.ts";

/** Appends the lines of one task, each ended by `end`. */
export function writeTask(task: PartTask, text: LineText, end: string): void {
  const { entity, eid, datapoints, ttlTokens } = task;
  if (task.delete) {
    writeKey(text, deleted, entity.id, eid);
    return put(text, end);
  }
  if (task.link) {
    writeKey(text, linked, entity.id, eid);
    putUnit(text, tab);
    put(text, writeLinkChange(task.link));
    return put(text, end);
  }
  let kind = first;
  if (ttlTokens !== null) {
    writeKey(text, tokens, entity.id, eid);
    putUnit(text, tab);
    put(text, JSON.stringify(ttlTokens));
    put(text, end);
    kind = further;
  }
  for (const datapoint of datapoints) {
    writeKey(text, kind, entity.id, eid);
    putUnit(text, tab);
    const from = lengthOf(text);
    putTail(text, datapoint);
    if (datapoint.spec.kind !== "plain") text.tails.push(from, lengthOf(text));
    put(text, end);
    kind = further;
  }
}

const tab = 9;
const [deleted, first, further, tokens, linked] = [120, 100, 43, 116, 108];

function writeKey(text: LineText, kind: number, type: string, eid: string): void {
  putUnit(text, kind);
  putUnit(text, tab);
  put(text, type);
  putUnit(text, tab);
  putEscaped(text, eid);
}

/** Appends {@link escapeText}. */
function putEscaped(text: LineText, piece: string): void {
  if (!putPlain(text, piece)) put(text, escapeText(piece));
}

/** As {@link writeTail}. */
function putTail(text: LineText, { attr, src, t1, t2, c, json }: CheckedDatapoint): void {
  put(text, attr);
  putUnit(text, tab);
  if (src === "") put(text, writeSource(src));
  else if (src !== null) putEscaped(text, src);
  putUnit(text, tab);
  if (t1 !== null) putTime(text, t1);
  putUnit(text, tab);
  if (t2 !== null) putTime(text, t2);
  putUnit(text, tab);
  if (c === 1) putUnit(text, 49);
  else put(text, String(c));
  putUnit(text, tab);
  put(text, json);
}

/** A datapoint's line from the attribute on, `attr src t1 t2 c json`: the form in which histories keep it, too. */
export function writeTail({ attr, src, t1, t2, c, json }: CheckedDatapoint): string {
  const source = src === null ? "" : writeSource(src);
  if (t1 === null && t2 === null && c === 1) return `${attr}\t${source}\t\t\t1\t${json}`;
  return `${attr}\t${source}\t${t1 === null ? "" : timeText(t1)}\t${t2 === null ? "" : timeText(t2)}\t${c}\t${json}`;
}

/** Of a line that begins with kind, type and eid what {@link writeTail} gives. */
function tailOf(line: string): string {
  const eidAt = line.indexOf("\t", 2) + 1;
  return line.slice(line.indexOf("\t", eidAt) + 1);
}

/** How many lines, and so seqs, {@link writeTask} makes of a task. */
export function linesOf(task: PartTask): number {
  return task.delete || task.link ? 1 : task.datapoints.length + (task.ttlTokens === null ? 0 : 1);
}

/** A source as a field: empty for none, `\\e` for the empty text. */
export function writeSource(src: string | null): string {
  if (src === null) return "";
  return src === "" ? "\\e" : escapeText(src);
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what has to be escaped
const special = /[\\\x00-\x1f]/;
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what has to be escaped
const specials = /[\\\x00-\x1f]/g;

/** Text without raw control characters or single backslashes. */
export function escapeText(text: string): string {
  if (!special.test(text)) return text;
  return text.replace(specials, (c) => {
    if (c === "\t") return "\\t";
    if (c === "\n") return "\\n";
    if (c === "\\") return "\\\\";
    return `\\x${c.charCodeAt(0).toString(16).padStart(2, "0")}`;
  });
}

/** The opposite of {@link escapeText}. */
export function unescapeText(text: string): string {
  if (!text.includes("\\")) return text;
  return text.replace(/\\(x[0-9a-f]{2}|.)/g, (_, c: string) => {
    if (c === "t") return "\t";
    if (c === "n") return "\n";
    if (c === "e") return "";
    if (c.length === 3) return String.fromCharCode(Number.parseInt(c.slice(1), 16));
    return c;
  });
}

/** A task as lines say it, before the model has judged it. */
export interface LoggedTask {
  /** Index of its first line, and how many. */
  readonly line: number;
  readonly lines: number;
  readonly type: string;
  readonly eid: string;
  /** The task, or why it no longer fits the model. */
  readonly task: PartTask | StarlingError;
}

/** Reads the task that begins at `lines[at]`; the caller knows that a task begins there. */
export function readTask(lines: readonly string[], at: number, model: Model): LoggedTask {
  let end = at + 1;
  while (end < lines.length && lines[end]?.charCodeAt(0) === 43) end++;
  const fields = (lines[at] ?? "").split("\t");
  const type = fields[1] ?? "";
  const eid = unescapeText(fields[2] ?? "");
  const where = { line: at, lines: end - at, type, eid };
  try {
    return { ...where, task: parseTask(fields, lines.slice(at, end), model) };
  } catch (error) {
    if (!(error instanceof StarlingError)) throw error;
    return { ...where, task: new StarlingError("MODEL_CHANGED", error.message, { cause: error }) };
  }
}

function parseTask(first: readonly string[], lines: readonly string[], model: Model): PartTask {
  const type = first[1] ?? "";
  const entity = model.entities.get(type);
  if (entity === undefined) throw new StarlingError("UNKNOWN_TYPE", `entity type ${type} is no longer in the model`);
  const eid = unescapeText(first[2] ?? "");
  const eidValue = readEid(entity, eid);
  const kind = first[0];
  const ttlTokens = kind === "t" ? (JSON.parse(first[3] ?? "{}") as Record<string, number>) : null;
  const link = kind === "l" ? readLinkChange(first[3] ?? "") : null;
  const datapoints = (kind === "d" ? lines : lines.slice(1)).map((line) => readDatapoint(line, entity, eidValue));
  return { entity, eid, eidValue, datapoints, ttlTokens, delete: kind === "x", cause: null, link };
}

function readDatapoint(line: string, entity: EntitySpec, eid: CheckedDatapoint["eid"]): CheckedDatapoint {
  const [, , , attr = "", src = "", t1 = "", t2 = "", c = "1", json = "null"] = line.split("\t");
  const spec = entity.attributes.get(attr);
  if (spec === undefined) {
    throw new StarlingError("UNKNOWN_ATTRIBUTE", `attribute ${entity.id}.${attr} is no longer in the model`);
  }
  return {
    spec,
    type: entity.id,
    eid,
    attr,
    json,
    v: readValue(spec, json),
    t1: t1 === "" ? null : Number(t1),
    t2: t2 === "" ? null : Number(t2),
    c: Number(c),
    src: src === "" ? null : unescapeText(src),
    line: tailOf(line),
  };
}

/** A stored value, checked against the model of now. */
export function readValue(spec: AttributeSpec, json: string): CheckedDatapoint["v"] {
  if (spec.dataType === null) return JSON.parse(json) as CheckedDatapoint["v"];
  return spec.dataType.check(spec.dataType.read(json));
}
