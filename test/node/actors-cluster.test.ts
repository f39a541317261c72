import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Calls, openCalls } from "../../proto/client-calls.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import { findUnowned, untilNothing } from "../support/cluster/liveness.ts";
import { startTestCluster, type TestCluster } from "../support/cluster/test-cluster.ts";
import { repository } from "../support/repository.ts";

/** Behaviours, a singleton and a schedule on three nodes in processes of their own, of which one is killed. */
let cluster: TestCluster;

beforeAll(async () => {
  const configDir = join(repository, "test/support/actors-config");
  cluster = await startTestCluster({ nodes: 3, configDir, shards: { entity: 16, system: 4 } });
}, 60_000);

afterAll(async () => {
  await cluster?.close();
});

const keys = Array.from({ length: 12 }, (_, index) => `k${index}`);

/** Adds one to a counter until a node has answered, under one key: however often that is asked, it counts once. */
async function addOnce(calls: readonly Calls[], key: string, number: number): Promise<number> {
  const options = { idempotencyKey: `${key} ${number}`, deadlineMs: 5_000 };
  for (let tries = 0; ; tries++) {
    const door = calls[(number + tries) % calls.length];
    try {
      const reply = await door?.actors.ask({ behaviour: "counter", key }, { add: 1 }, options);
      return (reply as { total: number }).total;
    } catch (error) {
      if (!(error instanceof StarlingError) || !error.retryable || tries > 20) throw error;
    }
  }
}

test("every node asks every actor; a node that dies takes no message and no reply along", {
  timeout: 90_000,
}, async () => {
  expect(await untilNothing(() => findUnowned(cluster), 15_000)).toEqual([]);
  const calls = await Promise.all(cluster.addresses.map((address) => openCalls({ address })));
  const rounds = 60;
  const totals = new Map(keys.map((key): [string, number[]] => [key, []]));
  const play = async (key: string): Promise<void> => {
    for (let number = 0; number < rounds; number++) totals.get(key)?.push(await addOnce(calls, key, number));
  };
  const playing = Promise.all(keys.map(play));
  await expect.poll(() => totals.get("k0")?.length ?? 0, { timeout: 20_000 }).toBeGreaterThan(15);
  await cluster.nodes[2]?.kill();
  await playing;
  for (const key of keys) expect(totals.get(key), key).toEqual(Array.from({ length: rounds }, (_, i) => i + 1));
  const board = (at: number) => calls[at]?.actors.ask({ singleton: "board" }, null);
  // It has a beat, too, which goes on.
  const totalsOfAll = Object.fromEntries(keys.map((key) => [key, rounds]));
  await expect.poll(() => board(0), { timeout: 15_000 }).toMatchObject(totalsOfAll);
  expect(await board(1)).toMatchObject(totalsOfAll);
  const digest = async (): Promise<number[]> => {
    const record = await calls[0]?.entities.get({ type: "page", eid: "digest", historyLimit: 1000 });
    return (record?.history.digest ?? []).map(({ v }) => Number(v)).sort((a, b) => a - b);
  };
  const now = Date.now();
  await expect.poll(async () => (await digest()).at(-1) ?? 0, { timeout: 15_000 }).toBeGreaterThan(now);
  const [first = 0, ...rest] = await digest();
  expect([first, ...rest]).toEqual([first, ...rest].map((_, i) => first + 1000 * i));
  for (const each of calls) await each.close();
});
