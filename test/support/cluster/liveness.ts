import { setTimeout } from "node:timers/promises";
import type { NodeStatus } from "../../../proto/admin-client.ts";
import { connect } from "../../../proto/client.ts";
import type { ReachOptions } from "../../../proto/client-dialler.ts";
import { toStarlingError } from "../../../proto/starling-error.ts";
import { connectAll } from "../databases.ts";
import { openKillDatabase } from "../kill-facts.ts";
import type { TestCluster } from "./test-cluster.ts";

/** Asks a node how it stands. Raises what the node, or the connection to it, says. */
export async function statusOf(address: string, reach: ReachOptions = {}): Promise<NodeStatus> {
  await using client = await connect({ ...reach, address, connectMs: 1_500, callMs: 3_000 });
  return await client.admin.status();
}

/** Why not every shard is owned by one living node, as the databases say, too; empty: each is. */
export async function findUnowned(cluster: TestCluster): Promise<string[]> {
  return (await lookAtOwners(cluster)).problems;
}

/**
 * Waits until each shard was seen to be owned by one living node, if not all at the same time: they go on moving to where they
 * are to be. Returns what was not seen within `withinMs`.
 */
export async function untilEachWasOwned(cluster: TestCluster, withinMs: number): Promise<string[]> {
  const seen = new Set<number>();
  return await untilNothing(async () => {
    const { problems, owned } = await lookAtOwners(cluster);
    for (const shard of owned) seen.add(shard);
    const { entity, system } = cluster.shards;
    return seen.size === entity + system ? [] : problems;
  }, withinMs);
}

async function lookAtOwners(cluster: TestCluster): Promise<{ problems: string[]; owned: number[] }> {
  const limits = { statementTimeoutMs: 5_000, connectTimeoutMs: 2_000 };
  const connections = connectAll(cluster.databaseUrls, { application: "liveness", ...limits });
  const problems: string[] = [];
  const owned: number[] = [];
  try {
    const text = "select shard, epoch::float8 as epoch, owner from starling.shard order by shard";
    const rows = await connections.query<{ shard: number; epoch: number; owner: string | null }>(text);
    const holders = new Map<number, { epoch: number; name: string }[]>();
    for (const { name, address, process } of cluster.nodes) {
      if (process === null) continue;
      const status = await statusOf(address, cluster.reach);
      if (status.state !== "serving") problems.push(`${name} is ${status.state}: ${status.problem}`);
      for (const { shard, epoch } of status.shards) {
        holders.set(shard, [...(holders.get(shard) ?? []), { epoch, name }]);
      }
    }
    const { entity, system } = cluster.shards;
    if (rows.length !== entity + system) problems.push(`${rows.length} shards stand in the databases`);
    for (const { shard, epoch, owner } of rows) {
      const held = holders.get(shard) ?? [];
      if (held.length === 1 && held[0]?.epoch === epoch && owner !== null) {
        owned.push(shard);
        continue;
      }
      const by = held.map((one) => `${one.name} in epoch ${one.epoch}`).join(", ") || "nobody";
      problems.push(`shard ${shard}, epoch ${epoch} of ${owner ?? "nobody"}, is held by ${by}`);
    }
  } catch (error) {
    problems.push(toStarlingError(error).message);
  } finally {
    await connections.close();
  }
  return { problems, owned };
}

/** Shards whose log is not processed and delivered to its end. */
export async function findBacklog(cluster: TestCluster): Promise<string[]> {
  await using databases = openKillDatabase(cluster.databaseUrls);
  try {
    return (await databases.openLogs()).map(
      (log) => `shard ${log.shard} ends at ${log.end}: watermark ${log.watermark}, delivered ${log.delivered}`,
    );
  } catch (error) {
    return [toStarlingError(error).message];
  }
}

/** Waits until nothing is found any more; returns what is found still at the end of `withinMs`. */
export async function untilNothing(find: () => Promise<string[]>, withinMs: number): Promise<string[]> {
  const untilMs = performance.now() + withinMs;
  for (;;) {
    const found = await find();
    if (found.length === 0 || performance.now() > untilMs) return found;
    await setTimeout(200);
  }
}
