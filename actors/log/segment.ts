import type { Model } from "../../modules/model.ts";
import { type Seq, type ShardId, toSeq, toShardId } from "../../proto/ids.ts";
import { hashOf } from "../../proto/shard-of.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import { type MessageResult, readResult, writeResult } from "../lane/message-result.ts";
import { type Cause, type Part, type PartRejection, type PartTask, taskFrom } from "../lane/part.ts";
import type { MarkBlock } from "../snapshots/tick-mark.ts";
import type { Segment, SegmentHead } from "../store/store.ts";
import { escapeText, type LoggedTask, linesOf, outboxJoint, readTask, unescapeText, writeTask } from "./line.ts";
import { createLineText, type LineText, put, putQuoted, putUnit, takeText } from "./line-text.ts";
import { putHex32, putNumber } from "./number-text.ts";

/**
 * A segment: what one commit appends to one shard's log, made of blocks. A block is a part of a channel, or the answer of
 * a hook: its tasks for the own shard and its outbox lines for others, recorded as one unit (R12, R15); or the mark of a tick.
 *
 * A behaviour's answer ends with the line of what its message came to (`message-result.ts`).
 *
 * The head is JSON: `p` lists parts [channel, number, predecessor, hash, first line, lines, rejections?], `a` lists answers
 * [cause seq, hook, depth, first line, lines], `c` gives causes of tasks that came from another shard
 * [line, shard, seq, hook, ordinal, depth].
 */
export type Block = Part | AnswerBlock | MarkBlock;

/** What a hook returned for one cause, split by shard. */
export interface AnswerBlock {
  readonly kind: "answer";
  readonly cause: Seq;
  readonly hook: string;
  readonly depth: number;
  readonly own: readonly PartTask[];
  readonly others: readonly OutboxTasks[];
  /** Of a message. */
  readonly result?: MessageResult;
}

export interface OutboxTasks {
  readonly target: ShardId;
  readonly tasks: readonly PartTask[];
}

const noTasks: readonly PartTask[] = [];

/** What a block brings for its own shard. */
export function tasksOf(block: Block): readonly PartTask[] {
  if (block.kind === "mark") return noTasks;
  return block.kind === "part" ? block.tasks : block.own;
}

/** How many seqs a block takes. */
export function linesOfBlock(block: Block): number {
  const tasks = tasksOf(block);
  let lines = block.kind === "answer" ? block.others.length + (block.result === undefined ? 0 : 1) : 0;
  for (const task of tasks) lines += linesOf(task);
  return lines === 0 ? 1 : lines;
}

/** Writes blocks as one segment from `seq` on, and gives each datapoint of the shard its line. */
export function writeSegment(at: { shard: ShardId; seq: Seq; at: number }, blocks: readonly Block[]): Segment {
  const text = createLineText(linesPage);
  const keys = createLineText(keysPage);
  const head = createLineText(headPage);
  const answers: AnswerFields[] = [];
  const causes: CauseFields[] = [];
  put(head, '{"p":[');
  let parts = 0;
  let line = 0;
  for (const block of blocks) {
    const first = line;
    const tasks = tasksOf(block);
    for (const task of tasks) {
      putHex32(keys, hashOf(task.entity.id, task.eid));
      if (block.kind === "part" && task.cause !== null) causes.push(causeFields(line, task.cause));
      writeTask(task, text, "\n");
      line += linesOf(task);
    }
    if (block.kind === "answer") {
      for (const other of block.others) writeOutbox(block, other, text);
      line += block.others.length;
      if (block.result !== undefined) {
        put(text, `${writeResult(block.result)}\n`);
        line++;
      }
    }
    if (line === first) {
      put(text, block.kind === "mark" ? `m\t${block.tick}\n` : "n\n");
      line++;
    }
    if (block.kind === "part") {
      if (parts++ > 0) put(head, ",");
      putPart(head, block, first, line - first);
    } else if (block.kind === "answer") answers.push([block.cause, block.hook, block.depth, first, line - first]);
  }
  putUnit(keys, 10);
  const body = takeText(text);
  giveLines(blocks, body, text.tails);
  const { shard, seq } = at;
  const lastSeq = toSeq(seq + line - 1);
  return { shard, seq, lastSeq, at: at.at, head: takeHead(head, answers, causes), body, keys: takeText(keys) };
}

/** Where segments are written, one after another: nothing on them outlives a call. */
const linesPage = Buffer.allocUnsafeSlow(65_536);
const keysPage = Buffer.allocUnsafeSlow(4_096);
const headPage = Buffer.allocUnsafeSlow(16_384);

/** Histories take these lines over as they stand: parts of one text, instead of a text each. */
function giveLines(blocks: readonly Block[], body: string, tails: readonly number[]): void {
  let next = 0;
  for (const block of blocks) {
    for (const task of tasksOf(block)) {
      for (const datapoint of task.delete ? [] : task.datapoints) {
        if (datapoint.spec.kind === "plain") continue;
        datapoint.line = body.slice(tails[next], tails[next + 1]);
        next += 2;
      }
    }
  }
}

type CauseFields = [line: number, shard: number, seq: number, hook: string, ordinal: number, depth: number];
type PartFields = [
  channel: string,
  number: number,
  predecessor: number | null,
  hash: string,
  first: number,
  lines: number,
  rejections?: readonly PartRejection[],
];
type AnswerFields = [cause: number, hook: string, depth: number, first: number, lines: number];

interface Head {
  readonly p: PartFields[];
  readonly a: AnswerFields[];
  readonly c: CauseFields[];
}

function causeFields(line: number, cause: Cause): CauseFields {
  return [line, cause.shard, cause.seq, cause.hook, cause.ordinal, cause.depth];
}

/** {@link PartFields} as JSON. */
function putPart(head: LineText, part: Part, first: number, lines: number): void {
  const { predecessor, rejections } = part;
  put(head, "[");
  putQuoted(head, part.channel);
  put(head, ",");
  putNumber(head, part.number);
  put(head, ",");
  if (predecessor === null) put(head, "null");
  else putNumber(head, predecessor);
  put(head, ",");
  putQuoted(head, part.hash);
  put(head, ",");
  putNumber(head, first);
  put(head, ",");
  putNumber(head, lines);
  if (rejections.length > 0) put(head, `,${JSON.stringify(rejections)}`);
  put(head, "]");
}

/** Ends the head, and takes it: as `JSON.stringify` would write a {@link Head}. */
function takeHead(text: LineText, answers: readonly AnswerFields[], causes: readonly CauseFields[]): string {
  if (answers.length === 0 && causes.length === 0) put(text, '],"a":[],"c":[]}\n');
  else put(text, `],"a":${JSON.stringify(answers)},"c":${JSON.stringify(causes)}}\n`);
  return takeText(text);
}

function writeOutbox(block: AnswerBlock, other: OutboxTasks, text: LineText): void {
  const ordinals = other.tasks.map((task) => task.cause?.ordinal ?? 0).join(",");
  put(text, `o\t${other.target}\t${block.cause}\t${escapeText(block.hook)}\t${block.depth}\t${ordinals}\t`);
  const content = createLineText();
  for (const task of other.tasks) writeTask(task, content, outboxJoint);
  put(text, `${takeText(content)}\n`);
}

/** A segment as replay and tails read it. */
export interface ReadSegment {
  readonly segment: Segment;
  readonly parts: readonly ReadPart[];
  readonly answers: readonly { readonly cause: Seq; readonly hook: string }[];
  /** What messages came to. */
  readonly results: readonly { readonly cause: Seq; readonly result: MessageResult }[];
  readonly tasks: readonly { readonly seq: Seq; readonly logged: LoggedTask; readonly cause: Cause | null }[];
  readonly outbox: readonly ReadOutbox[];
  readonly marks: readonly { readonly seq: Seq; readonly tick: number }[];
}

export interface ReadPart {
  readonly channel: string;
  readonly number: number;
  readonly hash: string;
  readonly firstSeq: Seq;
  readonly lastSeq: Seq;
  readonly rejections: readonly PartRejection[];
}

/** An outbox line: a part for `target` under the number `seq`. */
export interface ReadOutbox {
  readonly seq: Seq;
  readonly target: ShardId;
  readonly tasks: readonly PartTask[];
  /** Tasks that no longer fit the model. */
  readonly misfits: readonly OutboxMisfit[];
}

export interface OutboxMisfit {
  readonly logged: LoggedTask;
  readonly error: StarlingError;
  readonly cause: Cause;
}

/** Reads a segment back. Tasks that no longer fit the model are errors in their `logged.task`. */
export function readSegment(segment: Segment, model: Model): ReadSegment {
  const head = JSON.parse(segment.head) as Head;
  const lines = segment.body.split("\n");
  const causes = new Map(head.c.map((c) => [c[0], toCause(c)]));
  for (const answer of head.a) addOwnCauses(causes, answer, lines, segment.shard);
  const tasks: { seq: Seq; logged: LoggedTask; cause: Cause | null }[] = [];
  const outbox: ReadOutbox[] = [];
  const marks: { seq: Seq; tick: number }[] = [];
  for (let at = 0; at < lines.length; ) {
    const kind = lines[at]?.[0];
    const seq = toSeq(segment.seq + at);
    if (beginsTask(kind)) {
      const logged = readTask(lines, at, model);
      tasks.push({ seq, logged, cause: causes.get(at) ?? null });
      at += logged.lines;
    } else {
      if (kind === "o") outbox.push(readOutbox(lines[at] ?? "", seq, segment.shard, model));
      if (kind === "m") marks.push({ seq, tick: Number(lines[at]?.slice(2)) });
      at++;
    }
  }
  return {
    segment,
    parts: head.p.map((p) => readPart(p, segment.seq)),
    answers: head.a.filter((a) => resultOf(a, lines) === null).map((a) => ({ cause: toSeq(a[0]), hook: a[1] })),
    results: head.a.flatMap((a) => {
      const result = resultOf(a, lines);
      return result === null ? [] : [{ cause: toSeq(a[0]), result }];
    }),
    tasks,
    outbox,
    marks,
  };
}

function readPart(p: PartFields, start: Seq): ReadPart {
  const firstSeq = toSeq(start + p[4]);
  const lastSeq = toSeq(firstSeq + p[5] - 1);
  return { channel: p[0], number: p[1], hash: p[3], firstSeq, lastSeq, rejections: p[6] ?? [] };
}

/** The parts of a segment. */
export function readParts({ seq, head }: SegmentHead): ReadPart[] {
  return (JSON.parse(head) as Head).p.map((p) => readPart(p, seq));
}

/** What a message came to, if a segment says so. */
export function findResult(segment: Segment, cause: Seq): MessageResult | null {
  const head = JSON.parse(segment.head) as Head;
  const of = head.a.filter((a) => a[0] === cause);
  if (of.length === 0) return null;
  const lines = segment.body.split("\n");
  return of.map((a) => resultOf(a, lines)).find((result) => result !== null) ?? null;
}

function resultOf([, , , first, lines]: AnswerFields, body: readonly string[]): MessageResult | null {
  return readResult(body[first + lines - 1]);
}

function toCause(c: CauseFields): Cause {
  return { shard: toShardId(c[1]), seq: toSeq(c[2]), hook: c[3], ordinal: c[4], depth: c[5] };
}

/** Ordinals of own tasks are not stored: they come back in order, and only the depth matters to what they cause. */
function addOwnCauses(causes: Map<number, Cause>, a: AnswerFields, lines: readonly string[], shard: ShardId): void {
  let ordinal = 0;
  for (let line = a[3]; line < a[3] + a[4]; line++) {
    const kind = lines[line]?.[0];
    if (!beginsTask(kind)) continue;
    causes.set(line, { shard, seq: toSeq(a[0]), hook: a[1], ordinal: ordinal++, depth: a[2] });
  }
}

function beginsTask(kind: string | undefined): boolean {
  return kind === "d" || kind === "t" || kind === "x" || kind === "l";
}

function readOutbox(line: string, seq: Seq, shard: ShardId, model: Model): ReadOutbox {
  const [, target, cause, hook = "", depth, ordinals = ""] = line.split("\t", 6);
  const content = line.split("\t").slice(6).join("\t").split(outboxJoint);
  const numbers = ordinals.split(",").map(Number);
  const tasks: PartTask[] = [];
  const misfits: OutboxMisfit[] = [];
  for (let at = 0, index = 0; at < content.length; index++) {
    const logged = readTask(content, at, model);
    at += logged.lines;
    const ordinal = numbers[index] ?? 0;
    const from: Cause = { shard, seq: toSeq(Number(cause)), hook: unescapeText(hook), ordinal, depth: Number(depth) };
    if (logged.task instanceof StarlingError) misfits.push({ logged, error: logged.task, cause: from });
    else tasks.push(taskFrom(logged.task, from));
  }
  return { seq, target: toShardId(Number(target)), tasks, misfits };
}
