import type { Lane } from "./lane.ts";
import type { Shard } from "./shard.ts";

/** How often a shard's channels are looked through. */
const lookEveryMs = 3_600_000;

/**
 * Forgets channels that have had no part above the watermark for so long that no session can come back to them (R5, R11). In the
 * table `forget_channels_1` does the same by itself. Of other shards' outboxes there are only so many: they stay.
 */
export function forgetChannels(lane: Lane, shard: Shard): void {
  if (lane.now - shard.channelsSeenAt < lookEveryMs) return;
  shard.channelsSeenAt = lane.now;
  for (const [name, channel] of shard.channels) {
    if (!isClientChannel(name) || channel.recent !== null) continue;
    channel.restsSince ??= lane.now;
    if (lane.now - channel.restsSince >= lane.world.limits.channelLifeMs) shard.channels.delete(name);
  }
}

function isClientChannel(name: string): boolean {
  return name.startsWith("c:");
}
