import { expect, test } from "vitest";
import { createShardedStore } from "../../../actors/store/sharded-store.ts";
import type { Fence } from "../../../actors/store/store.ts";
import type { Membership, NodeRecord } from "../../../cluster/membership/membership.ts";
import { createOwnerTable } from "../../../cluster/owner-table.ts";
import { OwnershipKeeper } from "../../../cluster/ownership.ts";
import type { ShardId } from "../../../proto/ids.ts";
import { StarlingError } from "../../../proto/starling-error.ts";
import { createManualClock } from "../../support/manual-clock.ts";
import { createMemoryStore, type MemoryStore } from "../../support/memory-store.ts";
import { fencesOf, nodeA, segmentOf, shard1, shard2, shard3 } from "./samples.ts";

/* One store over two databases, of which either may refuse to give shards: shard 2 lives in the other one. */

type Place = "first" | "other";

function openPair() {
  const away = new Set<Place>();
  const problems: { readonly code: string; readonly shards: number }[] = [];
  const open = (place: Place): MemoryStore => {
    const memory = createMemoryStore();
    const acquire: MemoryStore["acquire"] = async (...call) => {
      if (away.has(place)) throw new StarlingError("STORE", `the ${place} database is away`);
      return await memory.acquire(...call);
    };
    return { ...memory, acquire };
  };
  const [first, other] = [open("first"), open("other")];
  const storeOf = (shard: ShardId): MemoryStore => (shard === shard2 ? other : first);
  const store = createShardedStore([first, other], storeOf, ({ code }, shards) => problems.push({ code, shards }));
  return { store, away, problems };
}

test("gives the shards of the databases that answer, and reports the one that does not", async () => {
  const { store, away, problems } = openPair();
  away.add("other");
  const fences = fencesOf(await store.acquire(nodeA, [shard1, shard2, shard3]));
  expect(fences).toEqual([
    { shard: shard1, epoch: 1 },
    { shard: shard3, epoch: 1 },
  ]);
  expect(problems).toEqual([{ code: "STORE", shards: 1 }]);
  expect(await store.append(nodeA, { fences, segments: [segmentOf(1, ["a"])] })).toEqual({ lost: [] });
  away.clear();
  expect(fencesOf(await store.acquire(nodeA, [shard2]))).toEqual([{ shard: shard2, epoch: 1 }]);
  expect(problems).toHaveLength(1);
});

test("fails where no database that has to be asked answers, and reports nothing besides", async () => {
  const { store, away, problems } = openPair();
  away.add("other");
  await expect(store.acquire(nodeA, [shard2])).rejects.toMatchObject({ code: "STORE" });
  away.add("first");
  await expect(store.acquire(nodeA, [shard1, shard2])).rejects.toMatchObject({ code: "STORE" });
  expect(problems).toEqual([]);
});

test("a node takes the shards of the databases that answer once, and the others when those answer again", async () => {
  const { store, away } = openPair();
  const clock = createManualClock();
  const owned = new Map<ShardId, Fence>();
  const epochs = (): [ShardId, number][] => [...owned.values()].map(({ shard, epoch }) => [shard, epoch]);
  away.add("other");
  const keeper = new OwnershipKeeper({
    ...{ shards: [shard1, shard2, shard3], membership: onlyMember(), owners: createOwnerTable(), alone: true, clock },
    store: { ...store, readOwners: async () => (await store.readOwners()).owners },
    keeper: {
      owns: (shard) => owned.has(shard),
      own: async (acquired) => {
        for (const one of acquired) owned.set(one.shard, one);
      },
      giveUp: async () => [],
      drop: (shards) => {
        for (const shard of shards) owned.delete(shard);
      },
      onLost: () => () => {},
    },
    announce: () => {},
    log: { info: () => {}, warn: () => {} },
  });
  await clock.advance(5_000);
  expect(epochs()).toEqual([
    [shard1, 1],
    [shard3, 1],
  ]);
  away.clear();
  await clock.advance(1_000);
  expect(epochs()).toEqual([
    [shard1, 1],
    [shard3, 1],
    [shard2, 1],
  ]);
  await keeper.close();
  expect(clock.timers).toBe(0);
});

function onlyMember(): Membership {
  const self: NodeRecord = {
    ...{ id: nodeA, name: "a", address: "a:1", version: "1", protocolMin: 1, protocolMax: 1, modelHash: "m" },
    state: "serving",
  };
  const view = {
    ...{ revision: 1, nodes: [self], suspects: new Set<never>(), pins: new Map(), weights: new Map() },
    departed: new Map(),
  };
  return {
    ...{ self, view, connected: true, answeredAtMs: 0 },
    look: async () => {},
    change: async () => ({ unpinned: [] }),
    onView: () => () => {},
    onExpelled: () => () => {},
    announce: async () => {},
    suspect: () => {},
    clear: () => {},
    close: async () => {},
  };
}
