import { type Seq, toSeq } from "../../proto/ids.ts";
import type { Channel, WaitingPart } from "./channel.ts";
import type { PartListener, PartRejection } from "./part.ts";

/**
 * A channel's parts above the watermark, in the order of their numbers and of their seqs, as columns: a part is one or two
 * datapoints, and a node has tens of thousands of them between its log and its watermarks. What all parts of a batch have in
 * common is one object; what few parts have lies beside.
 */
export interface RecentParts {
  batches: RecentBatch[];
  /** Three for each part: its position, and its first and last seq; 0 until it is durable. */
  places: number[];
  /** So many are durable: the first ones. */
  durable: number;
  /** By number. */
  beside: Map<number, Beside> | null;
}

/** A batch as it was offered. */
export interface RecentBatch {
  readonly number: number;
  readonly hash: string;
  /** How many parts were offered with one another: so much may be told at once. */
  readonly size: number;
  /** Null: nobody waits. */
  readonly listener: PartListener | null;
}

/** What few parts have. */
export interface Beside {
  rejections: readonly PartRejection[];
  /** Repeats that came before the part was durable. */
  repeats: Asked[];
}

/** Who offers a part, and as which one of a batch. */
export type Asked = Pick<WaitingPart, "position" | "listener">;

/** Takes a part that is to become durable. */
export function addRecent(channel: Channel, batch: RecentBatch, position: number): RecentParts {
  const { recent } = channel;
  channel.last = batch.number;
  if (recent === null) {
    channel.recent = { batches: [batch], places: [position, 0, 0], durable: 0, beside: null };
    return channel.recent;
  }
  recent.batches.push(batch);
  recent.places.push(position, 0, 0);
  return recent;
}

/** The next one is durable, and it is the one with this number, since they become so in order; returns its index. */
export function setDurable(channel: Channel, number: number, firstSeq: Seq, lastSeq: Seq): number {
  const { recent } = channel;
  const index = recent?.durable ?? 0;
  if (recent?.batches[index]?.number !== number) throw new Error(`batch ${number} became durable out of turn`);
  recent.places[3 * index + 1] = firstSeq;
  recent.places[3 * index + 2] = lastSeq;
  recent.durable++;
  return index;
}

/** A part, as who answers a repeat of it takes it. */
export function recentAt(recent: RecentParts, index: number): WaitingPart & { readonly number: number } {
  const batch = recent.batches[index];
  if (batch === undefined) throw new Error(`no recent part ${index}`);
  const { number, listener } = batch;
  const firstSeq = toSeq(recent.places[3 * index + 1] ?? 0);
  const lastSeq = toSeq(recent.places[3 * index + 2] ?? 0);
  return { number, position: positionOf(recent, index), listener, firstSeq, lastSeq };
}

/** Which of its batch's parts it is. */
export function positionOf({ places }: RecentParts, index: number): number {
  return places[3 * index] ?? 0;
}

/** What lies beside a part, made when there is nothing. */
export function besideOf(recent: RecentParts, number: number): Beside {
  recent.beside ??= new Map();
  const known = recent.beside.get(number);
  if (known !== undefined) return known;
  const beside = { rejections: [], repeats: [] };
  recent.beside.set(number, beside);
  return beside;
}

/** How many of the parts the watermark has passed. Pure. */
export function countPassed({ recent }: Channel, watermark: Seq): number {
  if (recent === null) return 0;
  const { places } = recent;
  let low = 0;
  for (let high = recent.durable; low < high; ) {
    const middle = (low + high) >>> 1;
    if ((places[3 * middle + 2] ?? 0) <= watermark) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Forgets the first parts. */
export function forgetPassed(channel: Channel, passed: number): void {
  const { recent } = channel;
  if (recent === null || passed === 0) return;
  if (passed === recent.batches.length) {
    channel.recent = null;
    return;
  }
  for (let index = 0; recent.beside !== null && index < passed; index++) {
    recent.beside.delete(recent.batches[index]?.number ?? 0);
  }
  recent.batches = recent.batches.slice(passed);
  recent.places = recent.places.slice(3 * passed);
  recent.durable -= passed;
}
