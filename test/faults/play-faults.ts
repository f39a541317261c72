import { setTimeout } from "node:timers/promises";
import { unreachable } from "../../proto/unreachable.ts";
import type { ClusterNode } from "../support/cluster/cluster-node.ts";
import type { TestCluster } from "../support/cluster/test-cluster.ts";
import { connectAll } from "../support/databases.ts";
import type { Fault } from "./fault-plan.ts";

/** A fault that was played. Times of `performance.now()`. */
export interface PlayedFault {
  readonly fault: Fault;
  readonly beganMs: number;
  readonly mendedMs: number;
  /** Why it could not be played as planned; null: it could. */
  readonly skipped: string | null;
}

/** What faults befall. */
export interface FaultyCluster extends Pick<TestCluster, "nodes" | "databaseUrls" | "restartPostgres"> {
  readonly network: Pick<TestCluster["network"], "cut" | "heal" | "halfOpen" | "reset">;
  readonly etcd: Pick<TestCluster["etcd"], "kill" | "stop" | "start">;
}

/** Plays the faults of a plan at their times; resolves when the last one is mended. */
export async function playFaults(cluster: FaultyCluster, plan: readonly Fault[]): Promise<PlayedFault[]> {
  const player = createPlayer(cluster);
  const beganMs = performance.now();
  const all = plan.map(async (fault) => {
    await setTimeout(Math.max(0, beganMs + fault.atMs - performance.now()));
    return await player(fault);
  });
  return await Promise.all(all);
}

type Player = (fault: Fault) => Promise<PlayedFault>;

function createPlayer(cluster: FaultyCluster): Player {
  /** Nodes with whose processes a fault is busy. */
  const busy = new Set<string>();
  /** By server: settles when its last fault so far is mended. */
  const turns = new Map<string, Promise<unknown>>();
  /** The first that is free; null: none is, or it would be the last node that runs. */
  const take = (fault: Fault): ClusterNode | null => {
    const free = cluster.nodes.filter(({ name, process }) => !busy.has(name) && process !== null);
    const wanted = cluster.nodes[fault.nodes[0]];
    const node = free.find((one) => one === wanted) ?? free[0];
    if (node === undefined || free.length < 2) return null;
    busy.add(node.name);
    return node;
  };
  const withNode = async (fault: Fault, run: (node: ClusterNode) => Promise<void>): Promise<string | null> => {
    const node = take(fault);
    if (node === null) return "no node was free for it";
    try {
      await run(node);
      return null;
    } finally {
      busy.delete(node.name);
    }
  };
  // There is one of each: two faults of it are played one after the other.
  const withServer = async (name: string, run: () => Promise<void>): Promise<null> => {
    const turn = (turns.get(name) ?? Promise.resolve()).then(run);
    turns.set(
      name,
      turn.catch(() => {}),
    );
    await turn;
    return null;
  };
  return async (fault) => {
    const beganMs = performance.now();
    const skipped = await play(cluster, fault, { withNode, withServer });
    return { fault, beganMs, mendedMs: performance.now(), skipped };
  };
}

interface Stage {
  withNode(fault: Fault, run: (node: ClusterNode) => Promise<void>): Promise<string | null>;
  withServer(name: string, run: () => Promise<void>): Promise<null>;
}

async function play(cluster: FaultyCluster, fault: Fault, stage: Stage): Promise<string | null> {
  const { kind, lastsMs, manner } = fault;
  const { network, etcd } = cluster;
  const [one, other] = fault.nodes.map((at) => cluster.nodes[at]?.name ?? "");
  if (one === undefined || other === undefined) throw new Error("a fault of two nodes has one");
  const isRude = manner === "rude";
  const cut = async (ways: readonly (readonly [string, string])[]): Promise<null> => {
    for (const [from, to] of ways) network.cut(from, to, isRude ? "lost" : "late");
    await setTimeout(lastsMs);
    for (const [from, to] of ways) network.heal(from, to);
    return null;
  };
  switch (kind) {
    case "kill":
      return await stage.withNode(fault, async (node) => {
        await node.kill();
        await setTimeout(lastsMs);
        await node.start();
      });
    case "stop":
      return await stage.withNode(fault, async (node) => {
        const code = await node.stop();
        if (code !== 0) throw new Error(`${node.name} was to stop and ended with ${code}`);
        await setTimeout(lastsMs);
        await node.start();
      });
    case "freeze":
      return await stage.withNode(fault, async (node) => {
        node.freeze();
        await setTimeout(lastsMs);
        if (node.process !== null) node.thaw();
      });
    case "cut":
      return await cut([
        [one, other],
        [other, one],
      ]);
    case "cut-one-way":
      return await cut([[one, other]]);
    case "half-open":
      network.halfOpen(one, other);
      return null;
    case "cut-etcd":
      return await cut([
        [one, "etcd"],
        ["etcd", one],
      ]);
    case "cut-postgres":
      return await cut([
        [one, "postgres"],
        ["postgres", one],
      ]);
    case "restart-postgres":
      return await stage.withServer("postgres", () => cluster.restartPostgres(isRude ? "immediate" : "fast", lastsMs));
    case "freeze-in-commit":
      return await stage.withNode(fault, async (node) => {
        await inCommit(cluster.databaseUrls, cluster.nodes.length, () => node.freeze());
        await setTimeout(lastsMs);
        if (node.process !== null) node.thaw();
      });
    case "restart-etcd":
    case "etcd-away":
      return await stage.withServer("etcd", async () => {
        await (isRude ? etcd.kill() : etcd.stop());
        await setTimeout(lastsMs);
        await etcd.start();
      });
    case "reset-etcd":
      network.reset(one, "etcd");
      return null;
    default:
      return unreachable(kind);
  }
}

const commitsWithinMs = 30_000;

/** Holds all commits up, does something when each node has one on its way, and lets them go on. */
async function inCommit(urls: readonly string[], nodes: number, run: () => void): Promise<void> {
  const options = { application: "faults", statementTimeoutMs: 30_000, connectTimeoutMs: 5_000 };
  const blocker = connectAll(urls, options);
  const watcher = connectAll(urls.slice(0, 1), options); // it sees the sessions of all that are in this PostgreSQL
  const waiting = `select count(distinct application_name)::int as n from pg_stat_activity
    where query like '%append%' and wait_event_type = 'Lock'`;
  try {
    await blocker.script("begin; lock table starling.log in exclusive mode");
    const untilMs = performance.now() + commitsWithinMs;
    for (;;) {
      const [row] = await watcher.query<{ n: number }>(waiting);
      if ((row?.n ?? 0) >= nodes) break;
      if (performance.now() > untilMs) throw new Error(`of ${nodes} nodes ${row?.n} have a commit on their way`);
      await setTimeout(20);
    }
    run();
  } finally {
    await blocker.close(); // ends the transactions
    await watcher.close();
  }
}
