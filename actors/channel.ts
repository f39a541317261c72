import type { Seq } from "../proto/ids.ts";
import type { Part, PartListener, PartRejection } from "./part.ts";

/**
 * A channel's end at the shard that receives (R9, R10): a client's session or another shard's outbox. Its numbers grow;
 * each part names the number of the channel's previous part for this shard.
 *
 * Why nothing is taken twice: `last` is at least the number of every part in the log, since an owner starts it from the
 * checkpoint and every entry above (`replay.ts`), and moves it when it admits. A number not above it is a repeat.
 * Why nothing is skipped: a part is only admitted behind the one it names, or, after a resume ("unknown"), as the first that a
 * sender sends of all it has unacknowledged, in order.
 */
export interface Channel {
  last: number;
  /** Parts above the watermark, in order: enough to answer a repeat without reading the log, and to tell who waits. */
  recent: RecentPart[];
  /** Changed since the last checkpoint. */
  dirty: boolean;
}

export interface RecentPart extends WaitingPart {
  readonly number: number;
  readonly hash: string;
  rejections: readonly PartRejection[];
  /** Repeats that came before the part was durable. */
  repeats: Pick<WaitingPart, "position" | "listener">[] | null;
}

/** A part and who waits for its end. */
export interface WaitingPart {
  readonly position: number;
  /** Null: nobody. */
  readonly listener: PartListener | null;
  /** 0 until durable. */
  firstSeq: Seq;
  lastSeq: Seq;
}

export type Admission =
  | { readonly kind: "append" }
  /** Known in memory: answer from there, now or when it is durable. */
  | { readonly kind: "repeat"; readonly recent: RecentPart }
  /** Known only to the log. */
  | { readonly kind: "look-up" }
  | { readonly kind: "changed" }
  | { readonly kind: "gap" };

/** What to do with an offered part. Pure. */
export function planAdmission(channel: Channel, part: Part): Admission {
  if (part.number <= channel.last) {
    const recent = findRecent(channel, part.number);
    if (recent === undefined) return { kind: "look-up" };
    return recent.hash === part.hash ? { kind: "repeat", recent } : { kind: "changed" };
  }
  if (part.predecessor === null || part.predecessor === channel.last) return { kind: "append" };
  return { kind: "gap" };
}

function findRecent({ recent }: Channel, number: number): RecentPart | undefined {
  let low = 0;
  for (let high = recent.length; low < high; ) {
    const middle = (low + high) >>> 1;
    if ((recent[middle]?.number ?? 0) < number) low = middle + 1;
    else high = middle;
  }
  return recent[low]?.number === number ? recent[low] : undefined;
}

/** How many of the parts the watermark has passed: the order of their numbers is that of their seqs. Pure. */
export function countPassed({ recent }: Channel, watermark: Seq): number {
  let low = 0;
  for (let high = recent.length; low < high; ) {
    const middle = (low + high) >>> 1;
    const lastSeq = recent[middle]?.lastSeq ?? 0;
    if (lastSeq !== 0 && lastSeq <= watermark) low = middle + 1;
    else high = middle;
  }
  return low;
}
