import { expect, test } from "vitest";
import type { Part } from "../../../actors/lane/part.ts";
import type { Store } from "../../../actors/store/store.ts";
import type { HookTable } from "../../../modules/hook.ts";
import { shardId, toNodeId, toSeq } from "../../../proto/ids.ts";
import { shardOf } from "../../../proto/shard-of.ts";
import { StarlingError } from "../../../proto/starling-error.ts";
import { createMemoryStore } from "../../support/memory-store.ts";
import { type SimulatedNode, type SimulationOptions, startSimulatedNode } from "../../support/simulated-node.ts";
import { hook, model, shards, task } from "./protocol-script.ts";

const noHooks: HookTable = {
  onTaskStart: [],
  allowEntityCreation: new Map(),
  onEntityCreation: new Map(),
  onNewAttr: new Map(),
};

function start(store: Store, name = "node", rest: Partial<SimulationOptions> = {}): Promise<SimulatedNode> {
  const runHook = () => ({ kind: "answer", tasks: [] }) as const;
  return startSimulatedNode({ store, model, hooks: noHooks, runHook, shards, name, dies: () => false, ...rest });
}

function part(number: number, predecessor: number | null, v = number, eid = "e"): Part {
  const shard = shardOf("entity", "src", eid, shards);
  const tasks = [{ ...task("src", eid, "a", v), cause: null }];
  const own = { kind: "part", position: 0, shard } as const;
  return { ...own, channel: "c:s", number, predecessor, hash: `h${v}`, tasks, rejections: [], bytes: 10 };
}

async function offer(node: SimulatedNode, ...parts: Part[]): Promise<string[]> {
  const said: string[] = [];
  for (const each of parts) {
    node.offer([each], (news) => {
      for (const event of news) {
        const what = event.kind === "refused" ? event.error.code : event.kind;
        said.push(`${each.number} ${what}${event.kind === "durable" && event.repeat ? " again" : ""}`);
      }
    });
  }
  await node.run();
  return said;
}

async function linesOfLog(store: Store): Promise<number> {
  return (await valuesOfLog(store)).length;
}

async function valuesOfLog(store: Store): Promise<(string | undefined)[]> {
  const log = await store.readLog(shardOf("entity", "src", "e", shards), toSeq(0), 1000);
  const lines = log.flatMap((segment) => segment.body.split("\n").filter((line) => line.startsWith("d")));
  return lines.map((line) => line.split("\t").at(-1));
}

test("a part whose predecessor is not the last one is a gap, and goes in once the missing one came (R9)", async () => {
  const store = createMemoryStore();
  const node = await start(store);
  expect(await offer(node, part(2, 1))).toEqual(["2 GAP"]);
  expect(await offer(node, part(1, 0), part(2, 1))).toEqual(["1 durable", "2 durable", "1 processed", "2 processed"]);
  expect(await linesOfLog(store)).toBe(2);
});

test("a repeat is acknowledged and not appended: on its way, in memory, and from the log after a take-over (R10)", async () => {
  const store = createMemoryStore();
  const node = await start(store);
  const said = await offer(node, part(1, 0), part(1, 0));
  expect(said.slice(0, 2)).toEqual(["1 durable", "1 durable again"]);
  expect((await offer(node, part(1, null)))[0]).toBe("1 durable again");
  const next = await start(store, "next");
  expect(await offer(next, part(1, null))).toEqual(["1 durable again", "1 processed"]);
  expect(await linesOfLog(store)).toBe(1);
});

test("a number that comes back with other content is never taken, nor one that has no entry (R10)", async () => {
  const store = createMemoryStore();
  const node = await start(store);
  // While the first one is still on its way, and once only the log knows it.
  const said = await offer(node, part(1, 0), part(1, 0, 77), part(3, null));
  expect(said.filter((text) => text.startsWith("1 ")).slice(0, 2)).toEqual(["1 BATCH_CHANGED", "1 durable"]);
  expect(await offer(node, part(1, null, 77))).toEqual(["1 BATCH_CHANGED"]);
  expect(await offer(node, part(2, null))).toEqual(["2 BATCH_CHANGED"]);
  const next = await start(store, "next");
  expect(await offer(next, part(1, null, 77))).toEqual(["1 BATCH_CHANGED"]);
  expect(await linesOfLog(store)).toBe(2);
});

test("a channel that is at rest costs flushes nothing, and one of which nothing was taken is forgotten", async () => {
  const store = createMemoryStore();
  const node = await start(store);
  const shard = () => node.lane.shards.get(shardOf("entity", "src", "e", shards));
  expect(await offer(node, { ...part(2, 1), channel: "c:gap" })).toEqual(["2 GAP"]);
  expect([...(shard()?.channels.keys() ?? [])]).toEqual([]);
  for (let i = 0; i < 3; i++) await offer(node, { ...part(1, 0, i), channel: `c:${i}` });
  expect([...(shard()?.channels.keys() ?? [])]).toEqual(["c:0", "c:1", "c:2"]);
  expect([...(shard()?.busy.keys() ?? [])]).toEqual([]);
  expect((await offer(node, { ...part(1, null, 1), channel: "c:1" }))[0]).toBe("1 durable again");
  const next = await start(store, "next");
  await next.run();
  const known = next.lane.shards.get(shardOf("entity", "src", "e", shards))?.channels ?? new Map();
  expect([...known].map(([name, { last }]) => [name, last])).toEqual([0, 1, 2].map((i) => [`c:${i}`, 1]));
});

test("an append whose outcome is unknown is repeated under the same seqs and stands once (R3)", async () => {
  const store = createMemoryStore();
  let failures = 3;
  const flaky: Store = {
    ...store,
    append: async (node, request) => {
      const result = await store.append(node, request);
      if (failures-- > 0) throw new StarlingError("STORE", "connection closed in the middle of a commit");
      return result;
    },
  };
  const node = await start(flaky);
  expect(await offer(node, part(1, 0))).toEqual(["1 durable", "1 processed"]);
  expect(await linesOfLog(store)).toBe(1);
});

test("a part that PostgreSQL refuses stands alone, its group goes on, and its number advances (R4, R9)", async () => {
  const store = createMemoryStore();
  const strict: Store = {
    ...store,
    append: (node, request) => {
      const bad = request.segments.some(({ body }) => body.includes("\t13"));
      if (bad) return Promise.reject(new StarlingError("STORE_REFUSED", "22P05"));
      return store.append(node, request);
    },
  };
  const node = await start(strict);
  // The first one is on its way alone; the others are a group, with the bad one behind a good one and before another.
  const said = await offer(node, part(1, 0), part(2, 1), part(3, 2, 13), part(4, 3));
  const durable = said.filter((text) => text.endsWith("durable"));
  expect(durable).toEqual(["1 durable", "2 durable", "3 durable", "4 durable"]);
  expect(await valuesOfLog(store)).toEqual(["1", "2", "4"]);
  expect((await offer(node, part(3, null, 13)))[0]).toBe("3 durable again");
});

test("a refused group in which a shard has several rows keeps the order of what it takes back (R1, R4)", async () => {
  const store = createMemoryStore();
  const refusing: Store = {
    ...store,
    append: (owner, request) => {
      const bad = request.segments.some(({ body }) => body.includes("\t-666"));
      if (bad) return Promise.reject(new StarlingError("STORE_REFUSED", "22P05"));
      return store.append(owner, request);
    },
  };
  const node = await start(refusing);
  // A row of the log takes 500 lines, and no part is split.
  const large = (number: number): Part => {
    const [first] = part(number, number - 1).tasks;
    const [datapoint] = first?.datapoints ?? [];
    if (first === undefined || datapoint === undefined) throw new Error("a part without a datapoint");
    return { ...part(number, number - 1), tasks: [{ ...first, datapoints: Array(300).fill(datapoint) }] };
  };
  // The first one is on its way alone; then come two rows, the second of which has a bad line.
  const said = await offer(node, part(1, 0), large(2), large(3), part(4, 3, -666), part(5, 4));
  expect(said.filter((what) => what.endsWith("durable"))).toEqual([1, 2, 3, 4, 5].map((number) => `${number} durable`));
  expect(await valuesOfLog(store)).toEqual(["1", "2", "3", "5"]);
});

test("an owner that was replaced can neither append nor flush, and tells whoever waits (P4, R22)", async () => {
  const store = createMemoryStore();
  const node = await start(store);
  await offer(node, part(1, 0));
  const shard = shardOf("entity", "src", "e", shards);
  await store.acquire(toNodeId("other"), [shard]);
  expect(await offer(node, part(2, 1))).toEqual(["2 FENCED"]);
  expect(node.lane.shards.has(shard)).toBe(false);
  expect(node.lane.shards.has(shardId("entity", (shard + 1) % shards))).toBe(true);
  expect(await linesOfLog(store)).toBe(1);
});

test("a group that is refused for one lost shard is sent again without it, once (R2)", async () => {
  const store = createMemoryStore();
  let appends = 0;
  const counted: Store = {
    ...store,
    append: (node, request) => {
      appends++;
      return store.append(node, request);
    },
  };
  const node = await start(counted);
  const other = Array.from({ length: 99 }, (_, i) => `o${i}`).find(
    (eid) => part(1, 0, 1, eid).shard !== part(1, 0).shard,
  );
  await offer(node, part(1, 0));
  await store.acquire(toNodeId("other"), [part(1, 0).shard]);
  appends = 0;
  // The first one is on its way when the others come: these are a group.
  const said = await offer(node, part(1, 0, 1, other), part(2, 1), part(2, 1, 2, other));
  expect(said.filter((text) => !text.endsWith("processed"))).toEqual(["1 durable", "2 FENCED", "2 durable"]);
  expect(appends).toBe(3);
});

/** A node that dies as soon as its append is in the log, with nothing flushed. */
async function appendAndDie(store: Store, parts: readonly Part[], elapsedMs = 0): Promise<void> {
  const node = await start(store, "dies", { dies: (effect) => effect === "append" });
  node.elapse(elapsedMs);
  expect(await offer(node, ...parts)).toEqual([]);
  expect(node.status).toBe("dead");
}

test("seqs go on above what the log holds after a take-over, also above the watermark (R5)", async () => {
  const store = createMemoryStore();
  await offer(await start(store), part(1, 0), part(2, 1));
  await appendAndDie(store, [part(3, null)]);
  const next = await start(store, "next");
  await offer(next, part(4, null));
  const shard = shardOf("entity", "src", "e", shards);
  const seqs = (await store.readLog(shard, toSeq(0), 100)).flatMap(({ seq, lastSeq }) => [seq, lastSeq]);
  expect(seqs).toEqual([1, 1, 2, 2, 3, 3, 4, 4]);
});

test("arrival times never go back, though the next owner's clock is behind, and hooks know no other (R6)", async () => {
  const store = createMemoryStore();
  const seen: unknown[] = [];
  const hooks = {
    ...noHooks,
    onNewAttr: new Map([["src", new Map([["a", [hook("on_new_attr", "src", "a", "own")]]])]]),
  };
  await appendAndDie(store, [part(1, 0)], 10_000);
  const next = await start(store, "next", {
    hooks,
    runHook: (_, { datapoint, now }) => {
      seen.push([datapoint?.v, now]);
      return { kind: "answer", tasks: [] };
    },
  });
  await offer(next, part(2, null));
  const times = (await store.readLog(part(1, 0).shard, toSeq(0), 100)).map(({ at }) => at);
  expect(times).toEqual([1_700_000_011_000, 1_700_000_011_000]);
  expect(seen).toEqual([
    [1, times[0]],
    [2, times[1]],
  ]);
});

test.each([
  ["tasks of a shard", { lagMaxEntries: 2 }],
  ["bytes of a shard", { lagMaxBytes: 20 }],
  ["bytes of a lane", { backlogMaxBytes: 20 }],
])(
  "above its bound on unprocessed %s an owner refuses for now, and takes more when some are processed (R7)",
  async (_, limits) => {
    const store = createMemoryStore();
    const node = await start(store, "node", { limits });
    const said = await offer(node, part(1, 0), part(2, 1), part(3, 2));
    expect(said).toEqual(["3 BUSY", "1 durable", "2 durable", "1 processed", "2 processed"]);
    expect(await offer(node, part(3, 2))).toEqual(["3 durable", "3 processed"]);
  },
);
