import { setTimeout } from "node:timers/promises";
import { type Client, connect } from "../../../proto/client.ts";
import type { ReachOptions } from "../../../proto/client-dialler.ts";
import { toStarlingError } from "../../../proto/starling-error.ts";
import { untilNothing } from "../cluster/liveness.ts";
import { connectAll } from "../databases.ts";
import type { KillDatapoint } from "../kill-model.ts";
import { createRandom } from "../random.ts";
import { checkFleetEnd, type FleetFacts, heldAt, referrersAsked, ridesAsked } from "./end-checker.ts";
import { type FleetLoad, startFleetLoad } from "./fleet-load.ts";
import { checkRun, checkSequence, type ToldRun } from "./run-checker.ts";
import { type RunReader, startRunReader } from "./run-reader.ts";

/** A load of links, lifetimes and snapshot runs on a cluster with the types of `fleet-config`, and those who read the runs. */
export interface Fleet extends AsyncDisposable {
  readonly load: FleetLoad;
  readonly reader: RunReader;
  /** Ends the load. */
  finish(): Promise<void>;
  /**
   * Waits, each thing within `withinMs`, until lives that are over have ended, and for one more run and its tasks. Returns
   * what is late.
   */
  settle(withinMs: number): Promise<string[]>;
  /** What is wrong; `facts` are those of the store after the end. */
  check(facts: StoredFacts): Promise<FleetVerdict>;
}

export interface FleetVerdict {
  readonly problems: readonly string[];
  readonly runs: {
    readonly finished: number;
    readonly failed: number;
    readonly told: number;
    readonly refused: number;
  };
}

export interface StoredFacts {
  readonly raw: readonly KillDatapoint[];
  readonly history: readonly KillDatapoint[];
}

export interface FleetOptions {
  readonly addresses: readonly string[];
  /** Without a proxy. */
  readonly databaseUrls: readonly string[];
  readonly seed: number;
  readonly reach?: ReachOptions;
}

const askEveryMs = [500, 2_500] as const;

/** Starts the load, the readers, and somebody who asks for runs beside those of the schedule. */
export async function startFleet(options: FleetOptions): Promise<Fleet> {
  const { addresses, databaseUrls, seed, reach = {} } = options;
  const load = await startFleetLoad(options);
  const reader = startRunReader(options);
  const stop = new AbortController();
  const asking = askForRuns(options, stop.signal);
  const finish = async (): Promise<void> => {
    stop.abort();
    await Promise.all([load.finish(), asking]);
  };
  return {
    ...{ load, reader, finish },
    [Symbol.asyncDispose]: async () => {
      await Promise.all([finish(), reader.close()]);
    },
    settle: async (withinMs) => {
      const late = (what: string) => (found: readonly string[]) => found.slice(0, 5).map((one) => `${what}: ${one}`);
      await using databases = openFleetDatabases(databaseUrls);
      await using client = await connect({ ...reach, addresses, callMs: withinMs });
      const mortals = await untilNothing(async () => {
        const { passing, dropped } = load.sent;
        return (await databases.mortals()).filter((eid) => passing.has(eid) || dropped.has(eid));
      }, withinMs);
      const tick = await client.snapshots.run({ full: seed % 2 === 0 }).catch((error: unknown) => error);
      const asked = typeof tick === "number" ? [] : [`a run could not be asked for: ${toStarlingError(tick).message}`];
      const last = typeof tick === "number" ? tick : Number.MAX_SAFE_INTEGER;
      const open = await untilNothing(() => databases.openUpTo(last), asked.length > 0 ? 0 : withinMs);
      await reader.finish();
      return [...late("there after their time")(mortals), ...asked, ...late("a run is not done")(open)];
    },
    check: async (facts) => {
      await using client = await connect({ ...reach, addresses });
      await using databases = openFleetDatabases(databaseUrls);
      const runs = [...reader.runs.values()].sort((a, b) => a.tick - b.tick);
      const problems = [
        ...load.errors,
        ...reader.problems,
        ...runs.flatMap((run) => checkRun(run, load.sent).slice(0, 8)),
        ...checkSequence(runs),
        ...checkFleetEnd(await readFacts(client, { load, runs, facts, databases }), load.sent),
      ];
      const { told, refused, failed } = reader;
      return { problems, runs: { finished: runs.length, failed: failed.size, told, refused } };
    },
  };
}

/** Now a whole run, now one of what has changed. */
async function askForRuns({ addresses, seed, reach = {} }: FleetOptions, signal: AbortSignal): Promise<void> {
  const random = createRandom(seed * 16 + 10);
  await using client = await connect({ ...reach, addresses, callMs: 5_000, connectMs: 120_000 });
  while (!signal.aborted) {
    // Refused or late for now; it may have begun all the same.
    await client.snapshots.run({ full: random.next() < 0.3 }).catch(() => {});
    await setTimeout(random.between(...askEveryMs), undefined, { signal }).catch(() => {});
  }
}

interface FleetDatabases extends AsyncDisposable {
  /** Guests and badges. */
  mortals(): Promise<string[]>;
  /** Runs that are not over, with the shards that they wait for, and tasks that are on their way, of ticks up to this one. */
  openUpTo(tick: number): Promise<string[]>;
  references(): Promise<FleetFacts["references"]>;
}

function openFleetDatabases(urls: readonly string[]): FleetDatabases {
  const times = { statementTimeoutMs: 20_000, connectTimeoutMs: 5_000 };
  const connections = connectAll(urls, { application: "fleet", ...times });
  return {
    mortals: async () => {
      const text = "select eid from starling.entity where type in ('guest', 'badge') and not tombstone";
      return (await connections.query<{ eid: string }>(text)).map(({ eid }) => eid);
    },
    openUpTo: async (tick) => {
      const running =
        "select tick, phase from starling.snapshot_run where tick <= $1 and status = 'running' order by tick";
      const runs = await connections.query<{ tick: string; phase: string }>(running, [tick]);
      const waiting = await Promise.all(runs.map((run) => connections.query<{ text: string }>(waitsText, [run.tick])));
      // A run that has ended wrote its tasks before: these are asked for last.
      const left = "select format('tasks of run %s in shard %s', tick, shard) as text from starling.snapshot_task";
      const tasks = await connections.query<{ text: string }>(`${left} where tick <= $1`, [tick]);
      const waits = waiting.map((shards) => shards.map(({ text }) => text).join(", "));
      return [
        ...runs.map((run, at) => `run ${run.tick} in phase ${run.phase} waits for ${waits[at]}`),
        ...tasks.map(({ text }) => text),
      ];
    },
    references: () => connections.query("select eid, attr, target from starling.reference where type = 'bus'"),
    [Symbol.asyncDispose]: () => connections.close(),
  };
}

const waitsText = `
  select format('shard %s of %s epoch %s %s', s.shard, s.owner, s.epoch,
      case when m.shard is null then 'without a mark' else format('at %s/%s', m.seq, m.eid) end) as text
    from starling.shard s left join starling.snapshot_mark m on m.shard = s.shard and m.tick = $1
    where m.done is not true order by s.shard`;

interface FactSources {
  readonly load: FleetLoad;
  readonly runs: readonly ToldRun[];
  readonly facts: StoredFacts;
  readonly databases: FleetDatabases;
}

async function readFacts(client: Client, { load, runs, facts, databases }: FactSources): Promise<FleetFacts> {
  const referrers = new Map<string, string[]>();
  const ask = async (key: string, query: { type: string; eid: string; at?: number }): Promise<void> => {
    const { links } = await client.entities.links({ ...query, reverse: true, limit: 1_000 });
    referrers.set(
      key,
      links.map(({ eid }) => eid),
    );
  };
  for (const eid of referrersAsked.lines) await ask(eid, { type: "line", eid });
  for (const eid of referrersAsked.stops) {
    for (const n of ridesAsked) await ask(`${eid} ${n}`, { type: "stop", eid, at: heldAt(load.beginsAt, n) });
  }
  const [mortals, references] = await Promise.all([databases.mortals(), databases.references()]);
  return { runs, referrers, references, mortals, told: tasksIn(facts.raw), kept: tasksIn(facts.history) };
}

/** What hooks of runs have told, by type and attribute. */
function tasksIn(datapoints: readonly KillDatapoint[]): Map<string, string[]> {
  const found = new Map<string, string[]>();
  for (const { type, attr, v } of datapoints) {
    if (type !== "lone" && type !== "round") continue;
    const key = `${type} ${attr}`;
    const values = found.get(key);
    if (values === undefined) found.set(key, [String(v)]);
    else values.push(String(v));
  }
  return found;
}
