import { setTimeout } from "node:timers/promises";
import { type AckRange, type Client, connect, type SendOutcome } from "../../../proto/client.ts";
import type { ReachOptions } from "../../../proto/client-dialler.ts";
import { shardOf } from "../../../proto/shard-of.ts";
import { toStarlingError } from "../../../proto/starling-error.ts";
import { createRandom, type Random } from "../random.ts";
import type { SentProbe } from "./expected-streams.ts";

/** Sessions that send numbers until they are stopped, whatever happens to the nodes, and read some of them again. */
export interface ClusterLoad {
  /** Datapoints sent so far. */
  readonly count: number;
  /** What `send` told its user, and reads that were wrong. Empty when all is well. */
  readonly errors: readonly string[];
  /** Reads that were exact, and those that were refused for now. */
  readonly reads: { readonly exact: number; readonly refused: number };
  /** One for each batch that was acknowledged; times of `performance.now()`. */
  readonly acks: readonly Ack[];
  /** Batches that wait for their acknowledgement, in words. */
  waiting(): string[];
  sent(): SentProbe[];
  /** Sends nothing more, and waits until everything is acknowledged or has failed. */
  finish(): Promise<void>;
}

export interface Ack {
  readonly sentMs: number;
  readonly ackedMs: number;
}

export interface ClusterLoadOptions {
  readonly addresses: readonly string[];
  readonly seed: number;
  /** Datapoints a second, of all sessions together. */
  readonly rate: number;
  readonly entityShards: number;
  /** How nodes are reached; default: plain text. */
  readonly reach?: ReachOptions;
}

const sessions = [
  { name: "swift", level: "durable", named: false },
  { name: "steady", level: "processed", named: true },
  { name: "quick", level: "durable", named: true },
  { name: "sure", level: "processed", named: false },
] as const;
const probesPerSession = 150;
const batchEveryMs = 100;
const inFlightMax = 8;
const readEvery = 5;
const firstAt = 1_700_000_000_000;

/** Starts the sessions. Each has probes of its own, so that the order of each probe's numbers is known. */
export function startClusterLoad(options: ClusterLoadOptions): ClusterLoad {
  const { addresses, seed, rate, reach = {} } = options;
  const stop = new AbortController();
  const state = {
    count: 0,
    errors: [] as string[],
    reads: { exact: 0, refused: 0 },
    acks: [] as Ack[],
    waiting: new Set<() => string>(),
  };
  const probes = new Map<string, { session: string; count: number }>();
  const running = sessions.map(async ({ name, level, named }, index) => {
    const random = createRandom(seed * 16 + index);
    // Each begins with another node.
    const order = [...addresses.slice(index % addresses.length), ...addresses.slice(0, index % addresses.length)];
    const session = named ? { session: { name } } : {};
    const durable = { last: 0 };
    const onAck = ({ last }: AckRange): void => {
      durable.last = Math.max(durable.last, last);
    };
    await using client = await connect({ ...reach, addresses: order, level, random: random.next, onAck, ...session });
    await using reader = await connect({ ...reach, addresses: [...order].reverse(), callMs: 5_000 });
    const size = Math.max(1, Math.round((rate / sessions.length) * (batchEveryMs / 1000)));
    await sendUntil(stop.signal, async (number) => {
      const batch = makeBatch(random, probes, name, index, size);
      state.count += batch.length;
      const sentMs = performance.now();
      const label = (): string => {
        const ends = `${batch[0]?.eid} ${batch[0]?.v} to ${batch.at(-1)?.eid} ${batch.at(-1)?.v}`;
        return `batch ${number} of ${name} (${ends}), the session is durable up to ${durable.last}`;
      };
      state.waiting.add(label);
      const outcome = await client.send(batch);
      state.waiting.delete(label);
      state.acks.push({ sentMs, ackedMs: performance.now() });
      const { accepted, rejections } = outcome;
      if (accepted !== batch.length) throw new Error(`a batch of ${name}: ${JSON.stringify(rejections.slice(0, 3))}`);
      if (level !== "processed" || number % readEvery !== 0) return;
      const problem = await readLast(reader, batch, outcome, options.entityShards, state.reads);
      if (problem !== null) state.errors.push(problem);
    });
  });
  const all = running.map((one) =>
    one.catch((error: unknown) => {
      const { code, message } = toStarlingError(error);
      state.errors.push(`${code}: ${message}`);
    }),
  );
  return {
    get count() {
      return state.count;
    },
    ...{ errors: state.errors, reads: state.reads, acks: state.acks },
    waiting: () => [...state.waiting].map((label) => label()),
    sent: () => [...probes].map(([eid, { session, count }]) => ({ eid, session, count })),
    finish: async () => {
      stop.abort();
      await Promise.all(all);
    },
  };
}

async function sendUntil(signal: AbortSignal, send: (number: number) => Promise<void>): Promise<void> {
  const inFlight = new Set<Promise<void>>();
  let nextMs = performance.now();
  for (let number = 1; !signal.aborted; number++) {
    const one = send(number).then(() => void inFlight.delete(one));
    inFlight.add(one);
    one.catch(() => {}); // raised by the wait below
    if (inFlight.size >= inFlightMax) await Promise.race(inFlight);
    // What was missed while the cluster did not answer is not made up for.
    nextMs = Math.max(nextMs, performance.now() - batchEveryMs) + batchEveryMs;
    await setTimeout(Math.max(0, nextMs - performance.now()));
  }
  await Promise.all(inFlight);
}

interface SentNumber {
  readonly type: "probe";
  readonly eid: string;
  readonly attr: "number";
  readonly v: number;
  readonly t1: number;
  readonly t2: number;
  readonly src: string;
}

function makeBatch(
  random: Random,
  probes: Map<string, { session: string; count: number }>,
  session: string,
  index: number,
  size: number,
): SentNumber[] {
  return Array.from({ length: size }, (): SentNumber => {
    const eid = `p${index * probesPerSession + random.between(1, probesPerSession)}`;
    const probe = probes.get(eid) ?? { session, count: 0 };
    probes.set(eid, probe);
    probe.count += 1;
    const t1 = firstAt + 1000 * probe.count;
    return { type: "probe", eid, attr: "number", v: probe.count, t1, t2: t1, src: session };
  });
}

/** What was processed is there for whoever reads with the token (R24). Returns what is wrong. */
async function readLast(
  reader: Client,
  batch: readonly SentNumber[],
  { tokens }: SendOutcome,
  entityShards: number,
  reads: { exact: number; refused: number },
): Promise<string | null> {
  const last = batch.at(-1);
  if (last === undefined) return null;
  const { type, eid } = last;
  const shard = shardOf("entity", type, eid, entityShards);
  const token = tokens.find((one) => one.shard === Number(shard));
  if (token === undefined) return `no token of shard ${shard} came with ${eid} ${last.v}`;
  try {
    const record = await reader.entities.get({ type, eid, token });
    const found = Number(record.attributes.number?.v ?? 0);
    if (found < last.v) return `${eid} ${last.v} was processed, and read as ${found}`;
    reads.exact += 1;
  } catch (error) {
    const { code, retryable, message } = toStarlingError(error);
    if (!retryable) return `reading ${eid} with a token: ${code}: ${message}`;
    reads.refused += 1;
  }
  return null;
}
