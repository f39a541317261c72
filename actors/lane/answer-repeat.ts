import { toSeq } from "../../proto/ids.ts";
import { type ReadPart, readParts } from "../log/segment.ts";
import type { AskedPart, SegmentHead } from "../store/store.ts";
import type { Channel, WaitingPart } from "./channel.ts";
import type { Lane, LaneMessage, LookUp } from "./lane.ts";
import type { Part, PartRejection } from "./part.ts";
import { type Asked, besideOf, type RecentParts, recentAt } from "./recent-parts.ts";
import { isSealed, type Shard } from "./shard.ts";
import { refuse, tellDurable, tellProcessed } from "./tell.ts";

/** Answers a repeat of a part that is remembered; one that is not durable yet is answered when it is. */
export function tellRepeat(
  lane: Lane,
  shard: Shard,
  { recent, index }: { readonly recent: RecentParts; readonly index: number },
  asked: Asked,
): void {
  const { number, firstSeq, lastSeq } = recentAt(recent, index);
  if (index >= recent.durable) {
    besideOf(recent, number).repeats.push(asked);
    return;
  }
  const rejections = recent.beside?.get(number)?.rejections ?? [];
  answerRepeat(lane, shard, { ...asked, firstSeq, lastSeq }, rejections);
}

/** Says that a part is durable already, and that it is processed as soon as the watermark has passed it: what really holds. */
export function answerRepeat(lane: Lane, shard: Shard, part: WaitingPart, rejections: readonly PartRejection[]): void {
  tellDurable(lane, shard, part, { repeat: true, rejections });
  if (shard.watermark < part.lastSeq) shard.repeats.push(part);
  else tellProcessed(lane, shard, part);
}

/** Where to look for a part: a sender repeats upward, from the last one that was found. */
export function askedPart({ found }: Channel, { shard, channel, number }: Part): AskedPart {
  return { shard, channel, number, from: found !== null && found.number <= number ? found.seq : toSeq(0) };
}

/** Answers repeats from the log: the same content, other content, or a number that has no entry (R10). */
export function answerLookUps(lane: Lane, { asked, found }: Extract<LaneMessage, { kind: "looked-up" }>): void {
  const partsOf = createPartsReader();
  for (const [index, lookUp] of asked.entries()) {
    const head = found[index] ?? null;
    const part = head === null ? null : partsOf(head).get(keyOf(lookUp.place));
    answerLookUp(lane, lookUp, part ?? null);
  }
}

function answerLookUp(lane: Lane, { place, hash, position, listener }: LookUp, found: ReadPart | null): void {
  const asked = { position, listener };
  const shard = lane.shards.get(place.shard);
  if (shard === undefined || isSealed(shard))
    return refuse(lane, asked, "MOVED", `this node does not own shard ${place.shard}`);
  if (found === null || found.hash !== hash) {
    return refuse(lane, asked, "BATCH_CHANGED", `batch ${place.number} was taken with other content, or not at all`);
  }
  const { firstSeq, lastSeq, rejections } = found;
  const channel = shard.channels.get(place.channel);
  if (channel !== undefined) channel.found = { number: place.number, seq: firstSeq };
  answerRepeat(lane, shard, { ...asked, firstSeq, lastSeq }, rejections);
}

/** Reads the parts of heads; one that holds several is read once. */
function createPartsReader(): (head: SegmentHead) => ReadonlyMap<string, ReadPart> {
  const read = new Map<SegmentHead, ReadonlyMap<string, ReadPart>>();
  return (head) => {
    const known = read.get(head) ?? new Map(readParts(head).map((part) => [keyOf(part), part]));
    read.set(head, known);
    return known;
  };
}

function keyOf({ channel, number }: Pick<AskedPart, "channel" | "number">): string {
  return `${number} ${channel}`;
}
