import { type Epoch, type Seq, type ShardId, toEpoch, toSeq } from "../../proto/ids.ts";
import type { Part, PartRejection, PartTask } from "./part.ts";

/**
 * What a session knows of the parts of a batch, as columns by position: hundreds of parts of a batch are on their way at once,
 * and thousands of durable batches wait to be processed, so that a part has no object of its own.
 */
export interface PartColumns {
  readonly channel: string;
  readonly number: number;
  readonly hash: string;
  /** As they are offered; of a durable batch only those that are on their way again. */
  parts: readonly (Part | undefined)[];
  readonly shards: ShardId[];
  readonly statuses: PartStatus[];
  /** How often each was offered: events of older offers are ignored. */
  readonly offers: number[];
  /** Of a part's last entry in the log; the seq is 0 until it is durable. */
  readonly epochs: Epoch[];
  readonly seqs: Seq[];
}

export type PartStatus = "held" | "offered" | "durable" | "done";

const noParts: readonly Part[] = [];
const noTasks: readonly PartTask[] = [];
const noRejections: readonly PartRejection[] = [];
const noEpoch = toEpoch(0);
const noSeq = toSeq(0);

/** The columns of a batch's parts, none of which is offered yet. */
export function createPartColumns(parts: readonly Part[]): PartColumns {
  const { length } = parts;
  const [first] = parts;
  // At their length from the start: what grows by pushing has room for half as much again.
  const shards = new Array<ShardId>(length);
  const statuses = new Array<PartStatus>(length);
  const offers = new Array<number>(length);
  const epochs = new Array<Epoch>(length);
  const seqs = new Array<Seq>(length);
  for (const { position, shard } of parts) {
    shards[position] = shard;
    statuses[position] = "held";
    offers[position] = 0;
    epochs[position] = noEpoch;
    seqs[position] = noSeq;
  }
  const { channel, number, hash } = first ?? { channel: "", number: 0, hash: "" };
  return { channel, number, hash, parts, shards, statuses, offers, epochs, seqs };
}

/** The seq of a part; 0 until it is durable. */
export function seqOf(columns: PartColumns, position: number): Seq {
  return columns.seqs[position] ?? noSeq;
}

export function epochOf(columns: PartColumns, position: number): Epoch {
  return columns.epochs[position] ?? noEpoch;
}

/** Where an offered part stands in the log; false: that is known already. */
export function setPlace({ epochs, seqs }: PartColumns, position: number, epoch: Epoch, seq: Seq): boolean {
  if (seqs[position] !== 0) return false;
  epochs[position] = epoch;
  seqs[position] = seq;
  return true;
}

export function shardOfPart({ shards, number }: PartColumns, position: number): ShardId {
  const shard = shards[position];
  if (shard === undefined) throw new Error(`batch ${number} has no part ${position}`);
  return shard;
}

/** Whether a part waits to be offered, or to hear of its offer. */
export function isOnItsWay({ statuses }: PartColumns, position: number): boolean {
  const status = statuses[position];
  return status === "held" || status === "offered";
}

/** The part as it is offered: of one that is durable the hash says what it holds. */
export function partAt(columns: PartColumns, position: number): Part {
  return columns.parts[position] ?? repeatPart(columns, position);
}

/** Its place in the log stands for what a durable part holds. */
export function forgetTasks({ parts }: PartColumns, position: number): void {
  const part = parts[position];
  if (part !== undefined) part.tasks = noTasks;
}

/** All parts are durable: of those alone that are on their way again something must be known beside the columns. */
export function forgetParts(columns: PartColumns): void {
  const { parts, statuses } = columns;
  const again = statuses.includes("held") || statuses.includes("offered");
  columns.parts = again ? parts.map((part, position) => (isOnItsWay(columns, position) ? part : undefined)) : noParts;
}

function repeatPart(columns: PartColumns, position: number): Part {
  const { channel, number, hash } = columns;
  const at = { kind: "part", position, shard: shardOfPart(columns, position) } as const;
  return { ...at, channel, number, predecessor: null, hash, tasks: noTasks, rejections: noRejections, bytes: 0 };
}
