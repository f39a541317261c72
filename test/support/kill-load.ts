import { setTimeout } from "node:timers/promises";
import { type Client, connect } from "../../proto/client.ts";
import { type Clock, systemClock } from "../../proto/clock.ts";
import type { SentDatapoint } from "./kill-model.ts";
import { createRandom, type Random } from "./random.ts";

/** Sessions that send until they are stopped, whatever happens to the node. */
export interface KillLoad {
  readonly sent: readonly SentDatapoint[];
  /** Batches that were acknowledged whole. */
  readonly acknowledged: ReadonlySet<string>;
  /** Rejects when a session fails. */
  readonly failed: Promise<never>;
  /** Sends nothing more, and waits until everything is acknowledged. */
  finish(): Promise<void>;
}

export interface KillLoadOptions {
  readonly address: string;
  readonly seed: number;
  /** Pause between two batches of a session. */
  readonly paceMs?: number;
}

const sessions = [
  { name: "swift", level: "durable", named: false },
  { name: "steady", level: "processed", named: true },
] as const;
const itemsPerSession = 40;
const batchMaxItems = 40;
const inFlightMax = 5;
const firstAt = 1_700_000_000_000;

/** Starts the sessions. Each has items of its own, so that the order of each item's datapoints is known. */
export function startKillLoad({ address, seed, paceMs = 5 }: KillLoadOptions): KillLoad {
  const sent: SentDatapoint[] = [];
  const acknowledged = new Set<string>();
  const stop = new AbortController();
  const numbers = { next: 1 };
  const running = sessions.map(async ({ name, level, named }, index) => {
    const random = createRandom(seed + index);
    const options = { address, level, random: random.next, clock: impatientClock, ...(named && { session: { name } }) };
    await using client = await connect(options);
    await sendUntil(client, stop.signal, paceMs, acknowledged, (batch) => {
      const datapoints = makeBatch(random, numbers, name, `${name}#${batch}`);
      sent.push(...datapoints);
      return datapoints;
    });
  });
  const all = Promise.all(running);
  const failed = all.then(() => new Promise<never>(() => {}));
  failed.catch(() => {}); // whoever waits for it hears of it
  const finish = async (): Promise<void> => {
    stop.abort();
    await all;
  };
  return { sent, acknowledged, failed, finish };
}

/** Sessions are back soon after the node is, so that it dies under load: the longest back-offs are cut short. */
const impatientClock: Clock = {
  ...systemClock,
  after: (ms, run) => systemClock.after(ms <= 2000 ? Math.min(ms, 150) : ms, run),
};

async function sendUntil(
  client: Client,
  signal: AbortSignal,
  paceMs: number,
  acknowledged: Set<string>,
  make: (batch: number) => readonly SentDatapoint[],
): Promise<void> {
  const inFlight = new Set<Promise<void>>();
  for (let batch = 1; !signal.aborted; batch++) {
    const datapoints = make(batch);
    const name = datapoints[0]?.batch ?? "";
    const one = client.send(datapoints).then(({ accepted, rejections }) => {
      if (accepted !== datapoints.length) throw new Error(`batch ${name}: ${JSON.stringify(rejections)}`);
      acknowledged.add(name);
      inFlight.delete(one);
    });
    inFlight.add(one);
    one.catch(() => {}); // raised by the wait below
    if (inFlight.size >= inFlightMax) await Promise.race(inFlight);
    await setTimeout(paceMs);
  }
  await Promise.all(inFlight);
}

/** Datapoints of items of one session, several of the same one among them, under numbers that nobody else has. */
function makeBatch(random: Random, numbers: { next: number }, session: string, batch: string): SentDatapoint[] {
  const size = random.between(1, batchMaxItems);
  return Array.from({ length: size }, (): SentDatapoint => {
    const number = numbers.next++;
    const item = random.between(1, itemsPerSession);
    const eid = item <= 2 ? `refused-${session}-${item}` : `${session}-${item}`;
    const common = { type: "item", eid, src: session, v: number, c: (1 + (number % 9)) / 10, batch };
    if (number % 3 === 0) return { ...common, attr: "level", t1: null, t2: null };
    // Times are not in the order of sending.
    const t1 = firstAt + 1000 * ((number * 7919) % 100_003);
    return { ...common, attr: "number", t1, t2: t1 + 500 };
  });
}
