import type { MessageInitShape } from "@bufbuild/protobuf";
import { type AckLevel, type AckSchema, AckLevel as Level } from "../../proto/gen/starling_pb.ts";
import { type Epoch, type Seq, type ShardId, toEpoch, toSeq } from "../../proto/ids.ts";
import { epochOf, seqOf, shardOfPart } from "../lane/part-columns.ts";
import { acceptedOf, type BatchToken, type OpenBatch } from "./session.ts";
import { wireToken } from "./wire-token.ts";

export type AckInit = MessageInitShape<typeof AckSchema>;

/** Batches in the order of their arrival that wait for an acknowledgement of one level. */
export interface AckQueue {
  readonly level: AckLevel;
  readonly waiting: OpenBatch[];
}

export function createAckQueue(level: AckLevel): AckQueue {
  return { level, waiting: [] };
}

/** Whether the oldest batch has reached the queue's level. */
export function canAck(queue: AckQueue): boolean {
  const head = queue.waiting[0];
  return head !== undefined && isReached(queue.level, head);
}

/** Characters of rejections in one acknowledgement of several batches: gRPC clients take messages of 4 MiB unless told otherwise. */
const rejectionsMaxLength = 500_000;

function lengthOfRejections({ rejections }: OpenBatch): number {
  let length = 0;
  for (const { message } of rejections) length += rejectionLength + message.length;
  return length;
}

/** Beside its message: index and code. */
const rejectionLength = 30;

/**
 * Takes the batches at the head that have reached the level, at most `limit`, and says so in ranges of growing numbers.
 * Tokens are joined per shard: the newest place stands for the range.
 */
export function takeAcks(
  queue: AckQueue,
  options: { readonly limit: number; readonly withTokens: boolean },
): { readonly acks: AckInit[]; readonly taken: OpenBatch[] } {
  const taken: OpenBatch[] = [];
  while (canAck(queue) && taken.length < options.limit) {
    const head = queue.waiting.shift();
    if (head !== undefined) taken.push(head);
  }
  const acks: AckInit[] = [];
  let range: OpenBatch[] = [];
  let length = 0;
  for (const batch of taken) {
    const told = lengthOfRejections(batch);
    if (range.length > 0 && (batch.number <= (range.at(-1)?.number ?? 0) || length + told > rejectionsMaxLength)) {
      acks.push(ackOf(queue.level, range, options.withTokens));
      range = [];
      length = 0;
    }
    length += told;
    range.push(batch);
  }
  if (range.length > 0) acks.push(ackOf(queue.level, range, options.withTokens));
  return { acks, taken };
}

/** The newest place per shard, in the order in which the batches name them. */
export function newestTokens(batches: Iterable<OpenBatch>): BatchToken[] {
  const order: ShardId[] = [];
  const epochs: Epoch[] = [];
  const seqs: Seq[] = [];
  for (const { columns } of batches) {
    for (let position = 0; position < columns.shards.length; position++) {
      const seq = seqOf(columns, position);
      if (seq === 0) continue;
      const shard = shardOfPart(columns, position);
      const known = seqs[shard];
      if (known === undefined) order.push(shard);
      else if (seq <= known) continue;
      seqs[shard] = seq;
      epochs[shard] = epochOf(columns, position);
    }
  }
  return order.map((shard) => ({ shard, epoch: epochs[shard] ?? toEpoch(0), seq: seqs[shard] ?? toSeq(0) }));
}

function isReached(level: AckLevel, batch: OpenBatch): boolean {
  return batch.undurable === 0 && (level !== Level.PROCESSED || batch.unprocessed === 0);
}

function ackOf(level: AckLevel, range: readonly OpenBatch[], withTokens: boolean): AckInit {
  const refused = range.filter((batch) => batch.rejections.length > 0);
  return {
    level,
    first: BigInt(range[0]?.number ?? 0),
    last: BigInt(range.at(-1)?.number ?? 0),
    accepted: BigInt(range.reduce((sum, batch) => sum + acceptedOf(batch), 0)),
    rejections: refused.map(({ number, rejections }) => ({ number: BigInt(number), rejections })),
    tokens: withTokens ? newestTokens(range).map(wireToken) : [],
    obligations: level === Level.PROCESSED ? range.reduce((sum, batch) => sum + batch.obligations, 0) : 0,
  };
}
