import type { ShardId } from "../../proto/ids.ts";
import type { OnFailPoint } from "./fail-point.ts";
import type { LaneMessage } from "./lane.ts";
import type { Part, PartListener } from "./part.ts";
import type { Shard } from "./shard.ts";

export interface DelivererOptions {
  /** Whether the shard is still the lane's. */
  readonly owns: (shard: Shard) => boolean;
  /** Offers parts to their targets' owners. */
  readonly offer: (parts: readonly Part[], listener: PartListener) => void;
  /** Tells the lane what came of them. */
  readonly post: (message: LaneMessage) => void;
  readonly after: (ms: number, run: () => void) => void;
  readonly onFailPoint: OnFailPoint;
}

const redeliverAfterMs = 100;

/**
 * Offers outbox parts until their targets have them; what one step says of a shard's parts comes as one message. What is
 * refused goes again after a while, all of it together and in order, and what comes up for the same target waits behind it:
 * alone, each of a thousand parts would only meet the gap before it, ten times a second.
 */
export function createDeliverer({
  owns,
  offer,
  onFailPoint,
  post,
  after,
}: DelivererOptions): (shard: Shard, part: Part) => void {
  interface Way {
    readonly parts: Map<number, Part>;
    readonly listener: PartListener;
    /** Those that go again, and their targets. */
    refused: Part[];
    readonly targets: Set<ShardId>;
  }
  const ways = new WeakMap<Shard, Way>();
  const refusing = new Set<Shard>();
  const openWay = (shard: Shard): Way => {
    const parts = new Map<number, Part>();
    const listener: PartListener = (news) => {
      const durable: number[] = [];
      const done: number[] = [];
      for (const { kind, position } of news) {
        const part = parts.get(position);
        if (part === undefined) continue;
        if (kind === "refused") offerLater(shard, way, part);
        if (kind === "durable") {
          part.tasks = []; // as a repeat it is known without them
          durable.push(part.number);
        }
        if (kind === "processed") {
          parts.delete(position);
          done.push(part.number);
        }
      }
      if (durable.length > 0) {
        onFailPoint("sent-not-marked");
        post({ kind: "delivered", shard, seqs: durable });
      }
      if (done.length > 0) post({ kind: "lines-done", shard, seqs: done });
    };
    const way: Way = { parts, listener, refused: [], targets: new Set() };
    ways.set(shard, way);
    return way;
  };
  const offerLater = (shard: Shard, way: Way, part: Part): void => {
    if (refusing.size === 0) after(redeliverAfterMs, offerAgain);
    refusing.add(shard);
    way.refused.push(part);
    way.targets.add(part.shard);
  };
  const offerAgain = (): void => {
    const shards = [...refusing];
    refusing.clear();
    for (const shard of shards) {
      const way = ways.get(shard);
      // What a shard has left to deliver when it goes, its next owner delivers.
      if (way === undefined || !owns(shard)) continue;
      const parts = way.refused.sort((a, b) => a.number - b.number);
      way.refused = [];
      way.targets.clear();
      offer(parts, way.listener);
    }
  };
  return (shard, part) => {
    if (!owns(shard)) return;
    const way = ways.get(shard) ?? openWay(shard);
    way.parts.set(part.position, part);
    onFailPoint("outbox-written-not-sent");
    if (way.targets.has(part.shard)) offerLater(shard, way, part);
    else offer([part], way.listener);
  };
}
