import type { Seq } from "../../proto/ids.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import type { WaitingPart } from "./channel.ts";
import type { Lane } from "./lane.ts";
import { countOwed } from "./obligation.ts";
import type { PartEvent, PartListener, PartRejection } from "./part.ts";
import { PartNews } from "./part-news.ts";
import { positionOf, type RecentBatch, type RecentParts, recentAt } from "./recent-parts.ts";
import type { Shard } from "./shard.ts";

/** Says that a part is durable. */
export function tellDurable(
  lane: Lane,
  shard: Shard,
  { position, listener, lastSeq: seq }: WaitingPart,
  { repeat, rejections }: { readonly repeat: boolean; readonly rejections: readonly PartRejection[] },
): void {
  if (listener === null) return;
  tell(lane, listener, { kind: "durable", position, shard: shard.id, epoch: shard.epoch, seq, repeat, rejections });
}

/** Says that a part is durable, for the first time and without rejections: what nearly always happens. */
export function tellAppended(lane: Lane, shard: Shard, batch: RecentBatch, position: number, seq: Seq): void {
  if (batch.listener !== null) newsFor(lane, batch.listener, batch.size).addAppended(position, shard, seq);
}

/** Says that the watermark has passed a part. */
export function tellProcessed(lane: Lane, shard: Shard, { position, listener, firstSeq, lastSeq }: WaitingPart): void {
  if (listener === null) return;
  const obligations = countOwed(shard, firstSeq, lastSeq);
  tell(lane, listener, { kind: "processed", position, obligations });
}

/** So many parts of a batch are passed by one flush, roughly: it takes the entities that changed longest ago, of any shard. */
const passedAtOnce = 8;

/** Says that the watermark has passed the first parts of a channel. */
export function tellPassed(lane: Lane, shard: Shard, recent: RecentParts, passed: number): void {
  const owes = shard.obligations.size > 0;
  for (let index = 0; index < passed; index++) {
    const batch = recent.batches[index];
    if (owes) tellProcessed(lane, shard, recentAt(recent, index));
    else if (batch !== undefined && batch.listener !== null) {
      newsFor(lane, batch.listener, passedAtOnce).addPassed(positionOf(recent, index));
    }
  }
}

/** Tells a listener, together with all else that the step has for it. */
export function tell(lane: Lane, listener: PartListener, event: PartEvent): void {
  newsFor(lane, listener, 1).add(event);
}

function newsFor(lane: Lane, listener: PartListener, size: number): PartNews {
  const { last } = lane.told;
  if (last?.listener === listener) return last.news;
  let told = lane.told.all.get(listener);
  if (told === undefined) {
    told = { kind: "tell", listener, news: new PartNews(size) };
    lane.told.all.set(listener, told);
    lane.effects.push(told);
  }
  lane.told.last = told;
  return told.news;
}

/** Says that a part is refused. */
export function refuse(
  lane: Lane,
  { position, listener }: { readonly position: number; readonly listener: PartListener },
  code: "MOVED" | "GAP" | "BATCH_CHANGED" | "BUSY",
  message: string,
): void {
  lane.world.counters.add(`refused/${code}`);
  tell(lane, listener, { kind: "refused", position, error: new StarlingError(code, message) });
}
