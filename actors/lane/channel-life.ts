import { channelLifeMs, isMortal } from "../store/session-life.ts";
import type { Lane } from "./lane.ts";
import type { Shard } from "./shard.ts";

/** How often a shard's channels are looked through. */
const lookEveryMs = 3_600_000;

/** Forgets the channels that are over: see `session-life.ts`. */
export function forgetChannels(lane: Lane, shard: Shard): void {
  if (lane.now - shard.channelsSeenAt < lookEveryMs) return;
  shard.channelsSeenAt = lane.now;
  for (const [name, channel] of shard.channels) {
    if (channel.recent !== null || !isMortal(name)) continue;
    channel.restsSince ??= lane.now;
    if (lane.now - channel.restsSince >= channelLifeMs) shard.channels.delete(name);
  }
}
