import type { Clock } from "../proto/clock.ts";
import { withDeadline } from "../proto/deadline.ts";
import type { Seq, ShardId } from "../proto/ids.ts";
import { StarlingError } from "../proto/starling-error.ts";
import type { LaneMessage } from "./lane/lane.ts";
import type { MessageResult } from "./lane/message-result.ts";
import { findResult } from "./log/segment.ts";
import type { Store } from "./store/store.ts";

export interface ReplyReaderOptions {
  readonly store: Store;
  readonly clock: Clock;
  /** False: the lane takes nothing. */
  readonly tell: (shard: ShardId, message: LaneMessage) => boolean;
}

export type ReadReply = (shard: ShardId, seq: Seq, deadlineMs: number) => Promise<MessageResult>;

/** Segments that are read at once, and how often: an answer stands soon behind its message. */
const pageSegments = 100;
const pagesMax = 50;

/**
 * Waits for what a message of a shard that is here comes to, and finds it in the log if that was a while ago. Raises MOVED
 * and FENCED, DEADLINE, BUSY, STORE, and NOT_FOUND when the log no longer tells.
 */
export function createReplyReader({ store, clock, tell }: ReplyReaderOptions): ReadReply {
  const wait = (shard: ShardId, seq: Seq, untilMs: number): Promise<MessageResult | null> =>
    new Promise((resolve, reject) => {
      const listener = (result: MessageResult | StarlingError | null): void =>
        result instanceof StarlingError ? reject(result) : resolve(result);
      const told = tell(shard, { kind: "await-reply", shard, seq, untilMs, listener });
      if (!told) reject(new StarlingError("UNAVAILABLE", "the node is closing"));
    });
  const find = async (shard: ShardId, seq: Seq, untilMs: number): Promise<MessageResult> => {
    let after = seq;
    for (let page = 0; page < pagesMax && clock.now() < untilMs; page++) {
      const segments = await store.readLog(shard, after, pageSegments);
      for (const segment of segments) {
        const result = findResult(segment, seq);
        if (result !== null) return result;
        after = segment.lastSeq;
      }
      if (segments.length < pageSegments) break;
    }
    throw new StarlingError("NOT_FOUND", `what message ${seq} of shard ${shard} came to is not known any more`);
  };
  return (shard, seq, deadlineMs) => {
    const untilMs = clock.now() + deadlineMs;
    const work = wait(shard, seq, untilMs).then((known) => known ?? find(shard, seq, untilMs));
    return withDeadline(work, { clock, deadlineMs, text: "the message was taken, but not answered" });
  };
}
