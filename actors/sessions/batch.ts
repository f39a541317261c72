import { checkDatapointOf, checkEid, findEntity } from "../../modules/check-datapoint.ts";
import type { CheckedDatapoint, Eid, LooseDatapoint } from "../../modules/datapoint.ts";
import { eidText } from "../../modules/eid.ts";
import type { EntitySpec, Model } from "../../modules/model.ts";
import { type ShardId, shardId, toShardId } from "../../proto/ids.ts";
import { hashOf } from "../../proto/shard-of.ts";
import { toStarlingError } from "../../proto/starling-error.ts";
import type { Part, PartRejection, PartTask } from "../lane/part.ts";

/** Bounds on one batch (R4). */
export const batchMaxItems = 10_000;
export const batchMaxBytes = 4 * 1024 * 1024;

/** Of why one datapoint is refused; and when all of a batch have said so much, so that an acknowledgement passes anywhere. */
const messageMaxLength = 500;
const messagesMaxLength = 500_000;
const messageShortLength = 60;

/** A batch before the check. `Item` is whatever `SplitOptions.read` understands. */
export interface LooseBatch<Item> {
  readonly number: number;
  readonly atomic: boolean;
  /** 16 hex digits over the content. */
  readonly hash: string;
  /** Encoded size. */
  readonly bytes: number;
  readonly datapoints: readonly Item[];
}

export interface SplitOptions<Item> {
  readonly model: Model;
  readonly entityShards: number;
  readonly channel: string;
  /** The shard that keeps the session's rejections. */
  readonly homeShard: ShardId;
  /** May throw a StarlingError, which refuses the item. */
  readonly read: (item: Item) => LooseDatapoint;
}

/** A batch after the check, as parts per shard. */
export interface SplitBatch {
  readonly number: number;
  readonly bytes: number;
  /** Datapoints in the batch as it came. */
  readonly items: number;
  readonly accepted: number;
  /** Never empty. Every part's predecessor is null: the session knows it. */
  readonly parts: readonly Part[];
  readonly rejections: readonly PartRejection[];
  /** For every datapoint the position of its part in `parts`; -1 for a refused one. Empty if all are refused at once. */
  readonly partOf: Int32Array;
  /** The batch was refused as a whole, with one rejection that speaks for all. */
  readonly whole: boolean;
}

/** Checks a batch, groups it by entity into tasks in order of first appearance, and these by shard into parts. */
export function splitBatch<Item>(batch: LooseBatch<Item>, options: SplitOptions<Item>): SplitBatch {
  const refused = refusalOf(batch);
  if (refused !== null) return refuseWhole(batch, options, [refused], true);
  const { model, read } = options;
  const items = batch.datapoints;
  const split = createSplit(batch, options);
  const rejections: PartRejection[] = [];
  let told = 0;
  for (let index = 0; index < items.length; index++) {
    let entity: EntitySpec;
    let datapoint: CheckedDatapoint;
    try {
      const loose = read(items[index] as Item);
      entity = findEntity(model, loose.type);
      datapoint = checkDatapointOf(entity, checkEid(entity, loose.eid), loose);
    } catch (error) {
      const rejection = rejectionOf(index, error, told < messagesMaxLength ? messageMaxLength : messageShortLength);
      told += rejection.message.length;
      rejections.push(rejection);
      continue;
    }
    addDatapoint(split, index, entity, datapoint);
  }
  if (rejections.length > 0 && batch.atomic)
    return refuseWhole(batch, options, atomicRejections(batch, rejections), false);
  handOutTasks(split);
  if (rejections.length > 0) {
    const home = homePart(split, options.homeShard);
    home.rejections = rejections;
    home.bytes += rejectionBytes * rejections.length;
  }
  return {
    number: batch.number,
    bytes: batch.bytes,
    items: items.length,
    accepted: items.length - rejections.length,
    parts: split.parts,
    rejections,
    partOf: split.partOf,
    whole: false,
  };
}

/** Rough size in memory of one datapoint beside its value. */
const taskItemBytes = 150;
/** How many slots an entity may take a look at: the hash is public, and a batch could be made up of equal ones. */
const stepsMax = 64;
const noTasks: PartTask[] = [];
const noRejections: readonly PartRejection[] = [];

/**
 * A batch on its way into parts. Its tasks and parts live until the batch is durable, thousands at a time, so they are made
 * once and at their size; all else is a few lists of numbers, the same few for a batch of any content.
 */
interface Split {
  readonly batch: Pick<LooseBatch<unknown>, "number" | "hash">;
  readonly options: Pick<SplitOptions<never>, "entityShards" | "channel">;
  readonly parts: GrowingPart[];
  /** For every datapoint the task that it opened, if it opened one. */
  readonly opened: (OpenTask | undefined)[];
  readonly partOf: Int32Array;
  /** The tasks by entity: places of the datapoints that opened them, plus one, where the hash of the entity says or after. */
  readonly slots: Int32Array;
  /** The same for those that did not find a slot within `stepsMax`. */
  crowded: Map<string, number> | null;
  /** For every shard the position of its part, plus one. */
  readonly partOfShard: Int32Array;
  /** For every part how many tasks it is to have. */
  readonly tasksOfPart: Int32Array;
}

interface GrowingPart extends Part {
  tasks: PartTask[];
  rejections: readonly PartRejection[];
  bytes: number;
}

interface OpenTask extends PartTask {
  readonly datapoints: CheckedDatapoint[];
}

function createSplit(batch: LooseBatch<unknown>, options: SplitOptions<never>): Split {
  const count = batch.datapoints.length;
  return {
    batch,
    options,
    parts: [],
    opened: new Array<OpenTask | undefined>(count),
    partOf: new Int32Array(count).fill(-1),
    // At most half of the slots are taken; their number is a power of two.
    slots: new Int32Array(2 << (32 - Math.clz32(count))),
    crowded: null,
    partOfShard: new Int32Array(options.entityShards),
    tasksOfPart: new Int32Array(count),
  };
}

function addDatapoint(split: Split, index: number, entity: EntitySpec, datapoint: CheckedDatapoint): void {
  const eidValue = datapoint.eid;
  const eid = eidText(entity, eidValue);
  const hash = hashOf(entity.id, eid);
  const opener = openerOf(split, index, entity, eidValue, hash);
  const known = split.opened[opener];
  if (known !== undefined) {
    known.datapoints.push(datapoint);
    const position = split.partOf[opener] ?? 0;
    const part = split.parts[position];
    if (part !== undefined) part.bytes += taskItemBytes + datapoint.json.length;
    split.partOf[index] = position;
    return;
  }
  const part = openPart(split, hash % split.options.entityShards);
  // Most tasks have one datapoint: a list that is empty at first takes room for seventeen.
  const datapoints = [datapoint];
  split.opened[index] = { entity, eid, eidValue, datapoints, ttlTokens: null, delete: false, cause: null, link: null };
  part.bytes += taskItemBytes + eid.length + taskItemBytes + datapoint.json.length;
  split.partOf[index] = part.position;
  split.tasksOfPart[part.position] = (split.tasksOfPart[part.position] ?? 0) + 1;
}

/** The datapoint that opened the entity's task; `index` from now on, if there was none. */
function openerOf(split: Split, index: number, entity: EntitySpec, eid: Eid, hash: number): number {
  const { slots, opened } = split;
  const last = slots.length - 1;
  const start = hash & last;
  for (let step = 0; step < stepsMax; step++) {
    const slot = (start + step) & last;
    const place = (slots[slot] ?? 0) - 1;
    if (place < 0) {
      slots[slot] = index + 1;
      return index;
    }
    const task = opened[place];
    if (task !== undefined && task.eidValue === eid && task.entity === entity) return place;
  }
  return crowdedOpenerOf(split, index, `${entity.id}\u0000${eid}`);
}

/** The same where too many hashes are alike. Slots are never given back: who was not found among them is not there. */
function crowdedOpenerOf(split: Split, index: number, key: string): number {
  split.crowded ??= new Map();
  const place = split.crowded.get(key);
  if (place !== undefined) return place;
  split.crowded.set(key, index);
  return index;
}

function openPart(split: Split, index: number): GrowingPart {
  const known = split.parts[(split.partOfShard[index] ?? 0) - 1];
  if (known !== undefined) return known;
  const part = createPart(split.parts.length, shardId("entity", index), split.batch, split.options.channel);
  split.parts.push(part);
  split.partOfShard[index] = split.parts.length;
  return part;
}

/** Gives the parts their tasks, in order of first appearance: from the last on, as the counts go down. */
function handOutTasks({ parts, opened, partOf, tasksOfPart }: Split): void {
  for (const part of parts) part.tasks = new Array<PartTask>(tasksOfPart[part.position] ?? 0);
  for (let index = opened.length - 1; index >= 0; index--) {
    const task = opened[index];
    const part = parts[partOf[index] ?? -1];
    if (task === undefined || part === undefined) continue;
    const left = (tasksOfPart[part.position] ?? 0) - 1;
    tasksOfPart[part.position] = left;
    part.tasks[left] = task;
  }
}

function homePart(split: Split, shard: ShardId): GrowingPart {
  const known = split.parts.find((part) => part.shard === shard);
  if (known !== undefined) return known;
  const part = createPart(split.parts.length, shard, split.batch, split.options.channel);
  split.parts.push(part);
  return part;
}

function refusalOf(batch: LooseBatch<unknown>): PartRejection | null {
  const items = batch.datapoints.length;
  if (items > batchMaxItems) {
    return whole("TOO_LARGE", `a batch of ${items} datapoints: the limit is ${batchMaxItems}`);
  }
  if (batch.bytes > batchMaxBytes) {
    return whole("TOO_LARGE", `a batch of ${batch.bytes} bytes: the limit is ${batchMaxBytes}`);
  }
  return items === 0 ? whole("INVALID_ARGUMENT", "an empty batch: a batch has at least one datapoint") : null;
}

function whole(code: "TOO_LARGE" | "INVALID_ARGUMENT", message: string): PartRejection {
  return { index: 0, code, message };
}

function rejectionOf(index: number, error: unknown, maxLength: number): PartRejection {
  const { code, message } = toStarlingError(error);
  return { index, code, message: message.length > maxLength ? `${message.slice(0, maxLength)}…` : message };
}

function atomicRejections(batch: LooseBatch<unknown>, own: readonly PartRejection[]): PartRejection[] {
  const first = own[0]?.index ?? 0;
  const byIndex = new Map(own.map((rejection) => [rejection.index, rejection]));
  const message = `the batch is atomic and its datapoint ${first} was refused`;
  return batch.datapoints.map((_, index) => byIndex.get(index) ?? { index, code: "ATOMIC_REFUSED", message });
}

function refuseWhole(
  batch: LooseBatch<unknown>,
  options: SplitOptions<never>,
  rejections: readonly PartRejection[],
  isWhole: boolean,
): SplitBatch {
  const part = createPart(0, options.homeShard, batch, options.channel);
  part.rejections = rejections;
  part.bytes += rejectionBytes * rejections.length;
  return {
    number: batch.number,
    bytes: batch.bytes,
    items: batch.datapoints.length,
    accepted: 0,
    parts: [part],
    rejections,
    partOf: new Int32Array(0),
    whole: isWhole,
  };
}

/** Rough size in memory of a part beside its tasks, and of a rejection. */
const partBytes = 150;
const rejectionBytes = 128;

function createPart(
  position: number,
  id: ShardId,
  { number, hash }: Pick<LooseBatch<unknown>, "number" | "hash">,
  channel: string,
): GrowingPart {
  const tasks = noTasks;
  const rejections = noRejections;
  const bytes = partBytes;
  // What `%` makes of a hash may be kept as a double, and once one is, every part's shard is an object of its own.
  const shard = toShardId(id | 0);
  return { kind: "part", position, shard, channel, number, predecessor: null, hash, tasks, rejections, bytes };
}
