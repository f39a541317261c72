import type { ShardId } from "../../proto/ids.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import type { Fence } from "../store/store.ts";
import { isOutboxChannel } from "./admission.ts";
import { leaveBacklog } from "./backlog.ts";
import { withoutShards } from "./flush-shards.ts";
import type { Lane } from "./lane.ts";
import { forgetOutbox } from "./outbox.ts";
import { type Asked, type RecentParts, recentAt } from "./recent-parts.ts";
import { refuseReplies } from "./replies.ts";
import { isAnswer, type PendingBlock, type Shard } from "./shard.ts";
import { tell } from "./tell.ts";

/** Forgets shards of which is known, not from the store's answer, that they are another node's. */
export function dropShards(lane: Lane, ids: readonly ShardId[]): void {
  for (const id of ids) {
    const shard = lane.shards.get(id);
    if (shard === undefined) continue;
    lane.world.counters.add("shards_dropped");
    forgetShard(lane, shard, new StarlingError("MOVED", `shard ${id} is another node's`));
    lane.effects.push({ kind: "abandon", shard: id });
  }
}

/**
 * Gives up a shard that can write nothing more (`flush.ts`): at once, and without a fence, as if it were lost. Its next owner
 * replays what stands in the log.
 */
export function leaveKeptBack(lane: Lane, shard: Shard): void {
  forgetShard(lane, shard, new StarlingError("MOVED", `shard ${shard.id} moves to another node`));
  lane.effects.push({ kind: "abandon", shard: shard.id });
}

/** Forgets a shard, and tells everybody who waits for something of it. */
export function forgetShard(lane: Lane, shard: Shard, error: StarlingError): void {
  lane.shards.delete(shard.id);
  lane.waiting.delete(shard);
  lane.touched.delete(shard);
  lane.dirty.delete(shard);
  lane.dirtyEntities -= shard.dirty.length;
  leaveBacklog(lane, shard);
  const gone = new Set([shard.id]);
  lane.packed &&= withoutShards(lane.packed, gone);
  lane.divided = lane.divided.flatMap((flush) => withoutShards(flush, gone) ?? []);
  lane.toLoad = lane.toLoad.filter((wanted) => wanted.shard !== shard);
  for (const [name, channel] of shard.busy) {
    if (channel.recent !== null) tellAllLost(lane, channel.recent, isOutboxChannel(name), error);
  }
  for (const delivery of forgetOutbox(lane, shard)) tellLost(lane, delivery, error);
  for (const repeat of shard.repeats) tellLost(lane, repeat, error);
  refuseReads(lane, shard, error);
  for (const built of lane.commit?.built ?? []) if (built.shard === shard) refuseClosings(lane, built.blocks, error);
  refuseClosings(lane, shard.blocks, error);
  endHandOff(lane, shard, null);
}

/** A shard's giving up has ended; tells who waits for it. */
export function endHandOff(lane: Lane, shard: Shard, fence: Fence | null): void {
  lane.leaving.delete(shard);
  const replies = shard.handOff?.replies.splice(0) ?? [];
  for (const reply of replies) lane.effects.push({ kind: "given-up", shard: shard.id, fence, reply });
}

/** Reads that wait for an activation in the shard, or for a reply. */
export function refuseReads(lane: Lane, shard: Shard, error: StarlingError): void {
  refuseReplies(lane, shard, error);
  if (lane.parkedGets.length === 0) return;
  for (const { key, reply } of lane.parkedGets) {
    if (key.shard === shard.id) lane.effects.push({ kind: "reply", reply, record: error });
  }
  lane.parkedGets = lane.parkedGets.filter(({ key }) => key.shard !== shard.id);
}

/** Replays of dead letters that are not durable, or not known to be. */
export function refuseClosings(lane: Lane, blocks: readonly PendingBlock[], error: StarlingError): void {
  for (const pending of blocks) {
    if (!isAnswer(pending) || pending.closing === undefined) continue;
    lane.effects.push({ kind: "closed", reply: pending.closing.reply, error });
  }
}

/** Of what is durable of an outbox its `taken` knows who waits, also below the watermark. */
function tellAllLost(lane: Lane, recent: RecentParts, outbox: boolean, error: StarlingError): void {
  for (let index = outbox ? recent.durable : 0; index < recent.batches.length; index++) {
    tellPartLost(lane, recent, index, error);
  }
}

/** Tells who waits for a part, and for repeats of it that came before it was durable. */
export function tellPartLost(lane: Lane, recent: RecentParts, index: number, error: StarlingError): void {
  const part = recentAt(recent, index);
  tellLost(lane, part, error);
  for (const repeat of recent.beside?.get(part.number)?.repeats ?? []) tellLost(lane, repeat, error);
}

function tellLost(lane: Lane, { position, listener }: Asked, error: StarlingError): void {
  if (listener !== null) tell(lane, listener, { kind: "refused", position, error });
}
