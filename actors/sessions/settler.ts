import type { Clock } from "../../proto/clock.ts";
import { withDeadline } from "../../proto/deadline.ts";
import type { Counters } from "../counters.ts";
import { readParts } from "../log/segment.ts";
import type { Store } from "../store/store.ts";
import type { Unpassed } from "../store/unpassed.ts";

/**
 * Says when everything of a channel up to a number is processed, to a client that knows all of it to be durable and has lost
 * the node that was to say so. PostgreSQL answers, not the owners of the shards: it holds every durable part, as it did when
 * the question came, and every watermark. So it does not matter which shards have parts of the channel, who owns them, and
 * whether an owner is one still; and nothing but numbers travels.
 *
 * All who wait are asked for by one statement, which reads only what the logs hold above the watermarks.
 */
export interface Settler {
  /** `onSettled` is called once, never at once. Returns what cancels it. */
  settle(channel: string, through: number, onSettled: OnSettled): () => void;
  close(): void;
}

export type OnSettled = (settled: Settled) => void;

/** Where the watermarks stood, at or above every part that was asked for; and how many entities owed something, to anybody. */
export type Settled = Pick<Unpassed, "watermarks" | "owing">;

export interface SettlerOptions {
  readonly store: Pick<Store, "readUnpassed">;
  readonly clock: Clock;
  readonly counters: Counters;
}

interface Waiting {
  readonly channel: string;
  readonly through: number;
  readonly onSettled: OnSettled;
}

/** A flush comes once a second, and a shard that has lost its owner takes longer. */
const lookEveryMs = 250;
const lookWithinMs = 5_000;
/** Channels in one look; the others wait for the next one. */
const channelsMax = 1_000;

/** A settler that asks nothing as long as nobody waits. */
export function createSettler({ store, clock, counters }: SettlerOptions): Settler {
  const waiting = new Set<Waiting>();
  let cancelTimer: (() => void) | null = null;
  let status: "open" | "closed" = "open";
  const look = async (): Promise<void> => {
    const asked = [...waiting].slice(0, channelsMax);
    const channels = [...new Set(asked.map(({ channel }) => channel))];
    const text = "what the logs hold above the watermarks was not read";
    const unpassed = await withDeadline(store.readUnpassed(channels), { clock, deadlineMs: lookWithinMs, text });
    const lowest = lowestOf(unpassed);
    for (const one of asked) {
      // Those that must go on waiting do so behind the others.
      if (!waiting.delete(one)) continue;
      if ((lowest.get(one.channel) ?? Number.POSITIVE_INFINITY) > one.through) one.onSettled(unpassed);
      else waiting.add(one);
    }
  };
  const lookLater = (): void => {
    if (cancelTimer !== null || waiting.size === 0 || status === "closed") return;
    cancelTimer = clock.after(lookEveryMs, () => {
      look()
        .catch(() => counters.add("settle_looks_failed"))
        .finally(() => {
          cancelTimer = null;
          lookLater();
        });
    });
  };
  return {
    settle: (channel, through, onSettled) => {
      const one = { channel, through, onSettled };
      waiting.add(one);
      lookLater();
      return () => void waiting.delete(one);
    },
    close: () => {
      status = "closed";
      waiting.clear();
      cancelTimer?.();
    },
  };
}

/** By channel the lowest number that a watermark has not passed. */
function lowestOf({ heads, watermarks }: Unpassed): Map<string, number> {
  const passed = new Map<number, number>(watermarks.map(({ shard, seq }) => [shard, seq]));
  const lowest = new Map<string, number>();
  for (const head of heads) {
    for (const { channel, number, lastSeq } of readParts(head)) {
      if (lastSeq <= (passed.get(head.shard) ?? 0)) continue;
      lowest.set(channel, Math.min(lowest.get(channel) ?? number, number));
    }
  }
  return lowest;
}
