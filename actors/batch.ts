import { checkDatapoint } from "../modules/check-datapoint.ts";
import type { CheckedDatapoint, Eid, LooseDatapoint } from "../modules/datapoint.ts";
import type { EntitySpec, Model } from "../modules/model.ts";
import type { ShardId } from "../proto/ids.ts";
import { shardOf } from "../proto/shard-of.ts";
import { StarlingError, toStarlingError } from "../proto/starling-error.ts";
import type { Part, PartRejection, PartTask } from "./part.ts";

/** Bounds on one batch (R4). */
export const batchMaxItems = 10_000;
export const batchMaxBytes = 4 * 1024 * 1024;

const messageMaxLength = 500;

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
  const split: Split = { batch, options, parts: [], byShard: new Map(), byType: new Map() };
  const partOf = new Int32Array(batch.datapoints.length).fill(-1);
  const rejections: PartRejection[] = [];
  let group: TypeGroup | null = null;
  for (const [index, item] of batch.datapoints.entries()) {
    let datapoint: CheckedDatapoint;
    try {
      datapoint = checkDatapoint(model, read(item));
    } catch (error) {
      rejections.push(rejectionOf(index, error));
      continue;
    }
    if (group === null || group.type !== datapoint.type) group = groupOfType(split, datapoint.type);
    let task = group.tasks.get(datapoint.eid);
    if (task === undefined) task = openTask(split, group, datapoint);
    else task.datapoints.push(datapoint);
    task.part.bytes += taskItemBytes + datapoint.json.length;
    partOf[index] = task.part.position;
  }
  if (rejections.length > 0 && batch.atomic)
    return refuseWhole(batch, options, atomicRejections(batch, rejections), false);
  if (rejections.length > 0) {
    const home = openPart(split, options.homeShard);
    home.rejections = rejections;
    home.bytes += rejectionBytes * rejections.length;
  }
  return {
    number: batch.number,
    bytes: batch.bytes,
    items: batch.datapoints.length,
    accepted: batch.datapoints.length - rejections.length,
    parts: split.parts,
    rejections,
    partOf,
    whole: false,
  };
}

/** Rough size in memory of one datapoint beside its value. */
const taskItemBytes = 150;

interface Split {
  readonly batch: Pick<LooseBatch<unknown>, "number" | "hash">;
  readonly options: Pick<SplitOptions<never>, "model" | "entityShards" | "channel">;
  readonly parts: GrowingPart[];
  readonly byShard: Map<ShardId, GrowingPart>;
  readonly byType: Map<string, TypeGroup>;
}

interface GrowingPart extends Part {
  readonly tasks: PartTask[];
  rejections: readonly PartRejection[];
  bytes: number;
}

interface TypeGroup {
  readonly type: string;
  readonly entity: EntitySpec;
  readonly tasks: Map<Eid, OpenTask>;
}

interface OpenTask {
  readonly part: GrowingPart;
  readonly datapoints: CheckedDatapoint[];
}

function refusalOf(batch: LooseBatch<unknown>): PartRejection | null {
  const items = batch.datapoints.length;
  if (items > batchMaxItems) {
    return whole("TOO_LARGE", `a batch of ${items} datapoints: the limit is ${batchMaxItems}`);
  }
  if (batch.bytes > batchMaxBytes) {
    return whole("TOO_LARGE", `a batch of ${batch.bytes} bytes: the limit is ${batchMaxBytes}`);
  }
  return items === 0 ? whole("INVALID_ARGUMENT", "an empty batch") : null;
}

function whole(code: "TOO_LARGE" | "INVALID_ARGUMENT", message: string): PartRejection {
  return { index: 0, code, message };
}

function rejectionOf(index: number, error: unknown): PartRejection {
  const { code, message } = toStarlingError(error);
  return {
    index,
    code,
    message: message.length > messageMaxLength ? `${message.slice(0, messageMaxLength)}…` : message,
  };
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
  shard: ShardId,
  { number, hash }: Pick<LooseBatch<unknown>, "number" | "hash">,
  channel: string,
): GrowingPart {
  const tasks: PartTask[] = [];
  const rejections: PartRejection[] = [];
  const bytes = partBytes;
  return { kind: "part", position, shard, channel, number, predecessor: null, hash, tasks, rejections, bytes };
}

function groupOfType(split: Split, type: string): TypeGroup {
  const known = split.byType.get(type);
  if (known !== undefined) return known;
  const entity = split.options.model.entities.get(type);
  if (entity === undefined) throw new StarlingError("INTERNAL", `a checked datapoint of the unknown type ${type}`);
  const group = { type, entity, tasks: new Map() };
  split.byType.set(type, group);
  return group;
}

function openTask(split: Split, group: TypeGroup, first: CheckedDatapoint): OpenTask {
  const eidValue = first.eid;
  const eid = String(eidValue);
  const shard = shardOf("entity", group.entity.id, eid, split.options.entityShards);
  const part = openPart(split, shard);
  // Most tasks have one: a list that grows from nothing would take place for seventeen.
  const datapoints = [first];
  part.tasks.push({ entity: group.entity, eid, eidValue, datapoints, ttlTokens: null, delete: false, cause: null });
  part.bytes += taskItemBytes + eid.length;
  const task = { part, datapoints };
  group.tasks.set(eidValue, task);
  return task;
}

function openPart(split: Split, shard: ShardId): GrowingPart {
  const known = split.byShard.get(shard);
  if (known !== undefined) return known;
  const part = createPart(split.parts.length, shard, split.batch, split.options.channel);
  split.parts.push(part);
  split.byShard.set(shard, part);
  return part;
}
