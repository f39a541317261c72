import { setTimeout as delay } from "node:timers/promises";
import type { Client } from "../../proto/client.ts";
import type { ThingDatapoint } from "./things.ts";

/** Small batches for one shard, one after another without waiting, and when they became durable. */
export interface ShardPulse {
  /** Waits for the next acknowledgement that satisfies; returns its time (of `performance.now()`). */
  until(accepts: (ack: PulseAck) => boolean, signal: AbortSignal): Promise<number>;
  /** The longest time without an acknowledgement that has an end after `sinceMs`. */
  longestGapMs(sinceMs: number): number;
  /** Sends nothing more, and waits for what is in flight. Rejects when a batch was not taken. */
  stop(): Promise<void>;
}

export interface PulseAck {
  readonly atMs: number;
  readonly epoch: number;
}

const everyMs = 5;
const withinMs = 30_000;

/** Starts sending; `next` makes a batch for the shard. */
export function startShardPulse(client: Client, shard: number, next: () => readonly ThingDatapoint[]): ShardPulse {
  const acks: PulseAck[] = [];
  const inFlight = new Set<Promise<void>>();
  const stop = new AbortController();
  let failure: unknown = null;
  const sendOne = async (): Promise<void> => {
    const batch = next();
    const { accepted, tokens } = await client.send(batch);
    const epoch = tokens.find((token) => token.shard === shard)?.epoch ?? 0;
    acks.push({ atMs: performance.now(), epoch });
    if (accepted !== batch.length) throw new Error(`${batch.length - accepted} datapoints were refused`);
  };
  const running = (async () => {
    while (!stop.signal.aborted) {
      const one: Promise<void> = sendOne()
        .catch((error: unknown) => {
          failure ??= error;
        })
        .finally(() => inFlight.delete(one));
      inFlight.add(one);
      await delay(everyMs);
    }
    await Promise.all(inFlight);
  })();
  return {
    until: async (accepts, signal) => {
      const untilMs = performance.now() + withinMs;
      for (let at = acks.length; ; ) {
        signal.throwIfAborted();
        if (failure !== null) throw failure;
        for (; at < acks.length; at++) {
          const ack = acks[at];
          if (ack !== undefined && accepts(ack)) return ack.atMs;
        }
        if (performance.now() > untilMs) throw new Error(`shard ${shard} did not move within ${withinMs} ms`);
        await delay(2);
      }
    },
    longestGapMs: (sinceMs) => {
      const gaps = acks.flatMap(({ atMs }, i) => (atMs < sinceMs ? [] : [atMs - (acks[i - 1]?.atMs ?? atMs)]));
      return Math.max(0, ...gaps);
    },
    stop: async () => {
      stop.abort();
      await running;
      if (failure !== null) throw failure;
    },
  };
}
