import { create } from "@bufbuild/protobuf";
import type { Model } from "../../modules/model.ts";
import {
  type CauseOfTasks,
  CauseOfTasksSchema,
  type Offer,
  OfferSchema,
  TraceOfTaskSchema,
} from "../../proto/gen/peer_pb.ts";
import { type ShardId, toSeq, toShardId } from "../../proto/ids.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import { type Cause, type Part, type PartRejection, type PartTask, taskFrom } from "../lane/part.ts";
import { linesOf, readTask, writeTask } from "../log/line.ts";
import { createLineText, takeText } from "../log/line-text.ts";
import type { Traces } from "../traces.ts";

/**
 * Parts as they travel to another node: columns by part, and the tasks as the lines that the log will hold. Whoever
 * reads them checks every value against its own model, which may be another one while nodes are replaced one by one.
 */
const unknownPredecessor = -1;

/** Parts of one batch of one channel, never none; `slots`: under which its sender hears of each. */
export function writeOffer(parts: readonly Part[], slots: readonly number[], traces?: Traces): Offer {
  const text = createLineText(page);
  const offer = create(OfferSchema, batchOf(parts));
  let task = 0;
  for (const [index, part] of parts.entries()) {
    let lines = 0;
    for (const each of part.tasks) {
      writeTask(each, text, "\n");
      lines += linesOf(each);
      if (each.cause !== null) addCause(offer.causes, task, each.cause);
      const context = traces?.contextOf(each) ?? null;
      if (context !== null) offer.traces.push(create(TraceOfTaskSchema, { task, context }));
      task++;
    }
    offer.slots.push(slots[index] ?? 0);
    offer.shards.push(part.shard);
    offer.predecessors.push(part.predecessor ?? unknownPredecessor);
    offer.lines.push(lines);
    offer.bytes.push(part.bytes);
    if (part.rejections.length > 0) addRejections(offer, index, part.rejections);
  }
  offer.text = Buffer.from(takeText(text));
  return offer;
}

/** A part that holds a task which does not fit the model of this node. */
export interface MisfitPart {
  readonly part: Part;
  readonly error: StarlingError;
}

interface ReadOffer {
  readonly parts: Part[];
  readonly misfits: MisfitPart[];
}

/**
 * What {@link writeOffer} wrote; a part's position is its slot. Parts with tasks that do not fit stand apart, without
 * tasks.
 */
export function readOffer(offer: Offer, model: Model, traces?: Traces): ReadOffer {
  const lines = readLines(offer.text);
  const causes = readCauses(offer.causes);
  const contexts =
    offer.traces.length === 0 ? undefined : new Map(offer.traces.map(({ task, context }) => [task, context]));
  const parts: Part[] = [];
  const misfits: MisfitPart[] = [];
  let line = 0;
  let index = 0;
  for (const [at, slot] of offer.slots.entries()) {
    const end = line + (offer.lines[at] ?? 0);
    const tasks: PartTask[] = [];
    let error: StarlingError | null = null;
    while (line < end) {
      const logged = readTask(lines, line, model);
      line += logged.lines;
      const cause = causes?.get(index) ?? null;
      if (logged.task instanceof StarlingError) error ??= logged.task;
      else {
        const task = cause === null ? logged.task : taskFrom(logged.task, cause);
        const context = contexts?.get(index);
        if (context !== undefined) traces?.follow(task, context);
        tasks.push(task);
      }
      index++;
    }
    const part = partOf(offer, at, slot, error === null ? tasks : []);
    if (error === null) parts.push(part);
    else misfits.push({ part, error });
  }
  return { parts, misfits };
}

/** Parts in groups that can travel as one offer, in their order. */
export function groupOffers(parts: readonly Part[], maxBytes: number): Part[][] {
  const groups: Part[][] = [];
  let group: Part[] = [];
  let bytes = 0;
  for (const part of parts) {
    const [first] = group;
    if (first !== undefined && (!isSameBatch(first, part) || bytes + part.bytes > maxBytes)) {
      groups.push(group);
      group = [];
      bytes = 0;
    }
    group.push(part);
    bytes += part.bytes;
  }
  if (group.length > 0) groups.push(group);
  return groups;
}

function isSameBatch(one: Part, other: Part): boolean {
  const { number, hash, channel, tick } = other;
  return one.number === number && one.hash === hash && one.channel === channel && one.tick === tick;
}

/** Where lines are written, one offer after another: nothing on it outlives a call. */
const page = Buffer.allocUnsafeSlow(65_536);

function batchOf([part]: readonly Part[]) {
  if (part === undefined) throw new Error("an offer without parts");
  const { channel, number, hash, tick = 0 } = part;
  return { channel, number, hash, tick };
}

function addCause(causes: CauseOfTasks[], task: number, { shard, seq, hook, ordinal, depth }: Cause): void {
  let last = causes.at(-1);
  if (last?.shard !== shard || last.seq !== seq || last.hook !== hook || last.depth !== depth) {
    last = create(CauseOfTasksSchema, { shard, seq, hook, depth });
    causes.push(last);
  }
  last.tasks.push(task);
  last.ordinals.push(ordinal);
}

function readCauses(causes: readonly CauseOfTasks[]): Map<number, Cause> | null {
  if (causes.length === 0) return null;
  const byTask = new Map<number, Cause>();
  for (const { shard, seq, hook, depth, tasks, ordinals } of causes) {
    for (const [at, task] of tasks.entries()) {
      byTask.set(task, { shard: toShardId(shard), seq: toSeq(seq), hook, ordinal: ordinals[at] ?? 0, depth });
    }
  }
  return byTask;
}

function addRejections(offer: Offer, part: number, rejections: readonly PartRejection[]): void {
  const { rejections: all } = create(OfferSchema, { rejections: [{ part, rejections: [...rejections] }] });
  offer.rejections.push(...all);
}

/**
 * Each line as a text of its own: what is cut out of a longer text would hold that as a whole, for as long as one
 * value of it is some entity's newest.
 */
function readLines(bytes: Uint8Array): string[] {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  const lines: string[] = [];
  for (let from = 0; from < text.length; ) {
    const found = text.indexOf(10, from);
    const end = found < 0 ? text.length : found;
    lines.push(text.toString("utf8", from, end));
    from = end + 1;
  }
  return lines;
}

const noRejections: readonly PartRejection[] = [];

function partOf(offer: Offer, at: number, position: number, tasks: readonly PartTask[]): Part {
  const { channel, number, hash, tick } = offer;
  const shard: ShardId = toShardId(offer.shards[at] ?? 0);
  const named = offer.predecessors[at] ?? unknownPredecessor;
  const predecessor = named === unknownPredecessor ? null : named;
  const own = offer.rejections.length === 0 ? undefined : offer.rejections.find(({ part }) => part === at);
  const rejections = own === undefined ? noRejections : readRejections(own.rejections);
  const bytes = offer.bytes[at] ?? 0;
  return { kind: "part", position, shard, channel, number, predecessor, hash, tasks, rejections, bytes, tick };
}

/** Rejections of the wire, as plain objects: they are stored. */
export function readRejections(rejections: readonly PartRejection[]): PartRejection[] {
  return rejections.map(({ index, code, message }) => ({ index, code, message }));
}
