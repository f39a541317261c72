import type { Seq } from "../../proto/ids.ts";
import type { Part, PartListener } from "./part.ts";
import type { RecentParts } from "./recent-parts.ts";

/**
 * A channel's end at the shard that receives (R9, R10): a client's session or another shard's outbox. Its numbers grow;
 * each part names the number of the channel's previous part for this shard.
 *
 * Why nothing is taken twice: `last` is at least the number of every part in the log, since an owner starts it from the
 * checkpoint and every entry above (`replay.ts`), and moves it when it admits. A number not above it is a repeat.
 *
 * Why nothing is skipped: a part is admitted behind the one it names, or as "unknown"; and whenever a sender says "unknown",
 * all earlier parts of the channel for this shard are durable. For a client that holds over any number of nodes and
 * connections, because of the window of what it has not had acknowledged as durable: it sends all of that, in order, on every
 * new connection before anything else. What lies before the window is durable, all of it, since a connection acknowledges its
 * batches in the order in which they came. The connection's first part for the shard says "unknown", and is the window's oldest
 * one for it, or there is none older. What is durable and waits to be processed is not sent again: of that the client asks by
 * the number of the newest, and PostgreSQL answers (`settler.ts`). A node that has to say it again, after GAP, says it
 * of its oldest unfinished part for the shard (`session.ts`, S2): its older ones are durable by now.
 *
 * So two nodes may offer parts of one session at the same time, an old connection's late ones and the new one's: each either
 * fits behind `last`, or is a repeat, or is a gap, in whatever order they arrive, at the old owner or at the next.
 */
export interface Channel {
  last: number;
  /** Parts above the watermark: enough to answer a repeat without reading the log, and to tell who waits; null: none. */
  recent: RecentParts | null;
  /** The newest look-up's part: repeats after it stand above; null: there was none. */
  found: { readonly number: number; readonly seq: Seq } | null;
  /** Since when it was seen without parts above the watermark (monotonic ms); null: it was not, since it had some. */
  restsSince: number | null;
}

/** A part and who waits for its end. */
export interface WaitingPart {
  readonly position: number;
  /** Null: nobody. */
  readonly listener: PartListener | null;
  readonly firstSeq: Seq;
  readonly lastSeq: Seq;
}

export type Admission =
  | { readonly kind: "append" }
  /** Known in memory: answer from there, now or when it is durable. */
  | { readonly kind: "repeat"; readonly recent: RecentParts; readonly index: number }
  /** Known only to the log. */
  | { readonly kind: "look-up" }
  | { readonly kind: "changed" }
  | { readonly kind: "gap" };

const append: Admission = { kind: "append" };

/** What to do with an offered part. Pure. */
export function planAdmission({ last, recent }: Channel, part: Part): Admission {
  if (part.number <= last) {
    const index = recent === null ? -1 : findRecent(recent, part.number);
    if (recent === null || index < 0) return { kind: "look-up" };
    return recent.batches[index]?.hash === part.hash ? { kind: "repeat", recent, index } : { kind: "changed" };
  }
  if (part.predecessor === null || part.predecessor === last) return append;
  return { kind: "gap" };
}

/** The index of the part with this number; -1: none. */
function findRecent({ batches }: RecentParts, number: number): number {
  let low = 0;
  for (let high = batches.length; low < high; ) {
    const middle = (low + high) >>> 1;
    if ((batches[middle]?.number ?? 0) < number) low = middle + 1;
    else high = middle;
  }
  return batches[low]?.number === number ? low : -1;
}
