import { setTimeout as delay } from "node:timers/promises";
import type { NodeStatus } from "../../proto/admin-client.ts";
import { openCalls } from "../../proto/client-calls.ts";

/** How the nodes of a cluster stand; rejects when one of them does not answer. */
export async function readStatuses(addresses: readonly string[]): Promise<NodeStatus[]> {
  return await Promise.all(
    addresses.map(async (address) => {
      await using calls = await openCalls({ address, connectMs: callMs, callMs });
      return await calls.admin.status();
    }),
  );
}

/** Waits until all nodes serve, every shard is owned once, and each node has its share. */
export async function untilBalanced(
  addresses: readonly string[],
  shards: { readonly entity: number; readonly system: number },
  signal: AbortSignal,
): Promise<void> {
  await until(`${addresses.length} nodes share ${shards.entity + shards.system} shards`, signal, async () => {
    const statuses = await readStatuses(addresses);
    const owned = statuses.flatMap((status) => status.shards.map(({ shard }) => shard));
    const least = leastOf(shards.entity, addresses.length) + leastOf(shards.system, addresses.length);
    const isShared = statuses.every((status) => status.state === "serving" && status.shards.length >= least);
    const isWhole = owned.length === shards.entity + shards.system && new Set(owned).size === owned.length;
    return isShared && isWhole ? null : statuses.map((one) => `${one.state} ${one.shards.length}`).join(", ");
  });
}

/** Waits until every shard is owned by one of the nodes, whatever their shares. */
export async function untilOwned(
  addresses: readonly string[],
  shards: { readonly entity: number; readonly system: number },
  signal: AbortSignal,
): Promise<void> {
  await until(`${shards.entity + shards.system} shards are owned`, signal, async () => {
    const statuses = await readStatuses(addresses);
    const owned = new Set(statuses.flatMap((status) => status.shards.map(({ shard }) => shard)));
    const missing = shards.entity + shards.system - owned.size;
    return missing === 0 ? null : `${missing} shards have no owner`;
  });
}

/** Waits until everything that the logs hold now is processed. */
export async function untilCaughtUp(addresses: readonly string[], signal: AbortSignal): Promise<void> {
  const ends = new Map<number, number>();
  await until("the watermarks reach the ends of the logs", signal, async () => {
    const statuses = await readStatuses(addresses);
    const shards = statuses.flatMap((status) => status.shards);
    if (ends.size === 0) for (const { shard, lastSeq } of shards) ends.set(shard, lastSeq);
    const behind = shards.filter(({ shard, watermark }) => watermark < (ends.get(shard) ?? 0));
    return behind.length === 0 ? null : `${behind.length} shards are behind`;
  });
}

/** Nodes may be one shard away from their share of a group, so that nothing moves without need. */
function leastOf(shards: number, nodes: number): number {
  return Math.ceil(shards / nodes - 1);
}

const callMs = 2_000;
const withinMs = 120_000;
const everyMs = 100;

/** `look` returns what is still missing; null: nothing. */
async function until(what: string, signal: AbortSignal, look: () => Promise<string | null>): Promise<void> {
  const untilMs = performance.now() + withinMs;
  for (;;) {
    signal.throwIfAborted();
    const missing = await look().catch(String);
    if (missing === null) return;
    if (performance.now() > untilMs) throw new Error(`${what}: not within ${withinMs} ms: ${missing}`);
    await delay(everyMs);
  }
}
