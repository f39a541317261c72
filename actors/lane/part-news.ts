import { type Epoch, type Seq, type ShardId, toSeq } from "../../proto/ids.ts";
import type { News, PartEvent, PartRejection } from "./part.ts";

/** The owner of a part, as far as it is told who that is. */
export interface PartOwner {
  readonly id: ShardId;
  readonly epoch: Epoch;
}

const noRejections: readonly PartRejection[] = [];

/**
 * What one step has to tell of the parts of a batch, as columns: nearly always that they are appended, or that the watermark
 * has passed them, hundreds at once. To walk through it makes events of them; who hears much of it reads the columns.
 */
export class PartNews implements News {
  readonly #size: number;
  readonly #positions: number[];
  /** The last seq of a part that is appended, 0 for one that is processed, else -1 less the event's index in `#events`. */
  readonly #seqs: number[];
  /** Of parts that are appended. */
  #owners: PartOwner[] | null = null;
  #events: PartEvent[] | null = null;
  #length = 0;

  /** `size`: how many parts there are to tell of, roughly: columns that are too long cost memory, too short ones grow. */
  constructor(size: number) {
    this.#size = size;
    this.#positions = new Array(size);
    this.#seqs = new Array(size);
  }

  get length(): number {
    return this.#length;
  }

  /** A part is durable, for the first time and with nothing refused. */
  addAppended(position: number, owner: PartOwner, seq: Seq): void {
    this.#owners ??= new Array(this.#size);
    this.#owners[this.#length] = owner;
    this.#add(position, seq);
  }

  /** A part is processed without obligations. */
  addPassed(position: number): void {
    this.#add(position, 0);
  }

  /** Anything else. */
  add(event: PartEvent): void {
    this.#events ??= [];
    this.#events.push(event);
    this.#add(event.position, -this.#events.length);
  }

  #add(position: number, seq: number): void {
    this.#positions[this.#length] = position;
    this.#seqs[this.#length] = seq;
    this.#length++;
  }

  positionAt(index: number): number {
    return this.#positions[index] ?? 0;
  }

  /** The last seq of a part that is appended; 0: it is processed; below: see {@link at}. */
  seqAt(index: number): number {
    return this.#seqs[index] ?? 0;
  }

  ownerAt(index: number): PartOwner | null {
    return this.#owners?.[index] ?? null;
  }

  /** What is told, as an event. */
  at(index: number): PartEvent {
    const position = this.positionAt(index);
    const seq = this.seqAt(index);
    const owner = this.ownerAt(index);
    const told = this.#events?.[-1 - seq];
    if (told !== undefined) return told;
    if (owner === null) return { kind: "processed", position, obligations: 0 };
    const { id: shard, epoch } = owner;
    return { kind: "durable", position, shard, epoch, seq: toSeq(seq), repeat: false, rejections: noRejections };
  }

  *[Symbol.iterator](): Iterator<PartEvent> {
    for (let index = 0; index < this.length; index++) yield this.at(index);
  }
}
