import { type Epoch, type Seq, type ShardId, toEpoch, toSeq } from "../proto/ids.ts";
import type { Part } from "./part.ts";

/**
 * The parts of a batch that is durable and waits to be processed, as columns by position: of thousands of such batches only
 * their places in the log are kept, and what it takes to offer a part again when its owner goes away.
 */
export interface DurableParts {
  readonly channel: string;
  readonly hash: string;
  readonly shards: readonly ShardId[];
  readonly epochs: readonly Epoch[];
  readonly seqs: readonly Seq[];
  /** How often each was offered; 0 once it is processed, or offered again as a part of its own. */
  readonly offers: number[];
}

/** What one part was when its batch became durable. */
export interface DurablePart {
  readonly part: Pick<Part, "shard" | "channel" | "hash">;
  readonly offer: number;
  readonly epoch: Epoch;
  readonly seq: Seq;
  readonly status: string;
}

/** The columns of a batch's parts. */
export function createDurableParts(parts: readonly DurablePart[]): DurableParts {
  const [first] = parts;
  return {
    channel: first?.part.channel ?? "",
    hash: first?.part.hash ?? "",
    shards: parts.map(({ part }) => part.shard),
    epochs: parts.map(({ epoch }) => epoch),
    seqs: parts.map(({ seq }) => seq),
    offers: parts.map(({ offer, status }) => (status === "durable" ? offer : 0)),
  };
}

/** Where the parts stand in the log. */
export function placesOf({ shards, epochs, seqs }: DurableParts): { shard: ShardId; epoch: Epoch; seq: Seq }[] {
  return shards.map((shard, position) => ({
    shard,
    epoch: epochs[position] ?? toEpoch(0),
    seq: seqs[position] ?? toSeq(0),
  }));
}

/** A durable part as it is offered again: its hash says what it holds. */
export function repeatPart(durable: DurableParts, number: number, position: number): Part {
  const shard = durable.shards[position];
  if (shard === undefined) throw new Error(`batch ${number} has no part ${position}`);
  return {
    kind: "part",
    position,
    shard,
    channel: durable.channel,
    number,
    predecessor: null,
    hash: durable.hash,
    tasks: [],
    rejections: [],
    bytes: 0,
  };
}
