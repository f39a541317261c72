import { expect, test } from "vitest";
import type { HookCall } from "../../../actors/hooks/hook-call.ts";
import type { HookOutcome } from "../../../actors/hooks/hook-outcome.ts";
import type { LaneLimits } from "../../../actors/lane/lane.ts";
import type { PartEvent } from "../../../actors/lane/part.ts";
import type { CheckedTask } from "../../../modules/datapoint.ts";
import type { Hook, HookTable } from "../../../modules/hook.ts";
import { type ShardId, toSeq } from "../../../proto/ids.ts";
import { shardOf } from "../../../proto/shard-of.ts";
import { createMemoryStore, type MemoryStore } from "../../support/memory-store.ts";
import { type SimulatedNode, startSimulatedNode } from "../../support/simulated-node.ts";
import { hook, model, shards, task } from "./protocol-script.ts";

/** Entities in shards of their own, from the one that senders reach to the one that does not get on. */
const [first, second, third] = eidsInShards(3);
const bound = 10;

function eidsInShards(count: number): readonly string[] {
  const found = new Map<ShardId, string>();
  for (let i = 0; found.size < count; i++) {
    const shard = shardOf("entity", "src", `e${i}`, shards);
    if (!found.has(shard)) found.set(shard, `e${i}`);
  }
  return [...found.values()];
}

const shardOfEid = (eid = ""): ShardId => shardOf("entity", "src", eid, shards);

/** A node whose hooks derive one task along `route`, and hang at `stuck` until they are let go. */
async function startWorld(
  route: Readonly<Record<string, string>>,
  stuck: string | null,
  limits: Partial<LaneLimits> = {},
) {
  const store = createMemoryStore();
  const waiting: (() => void)[] = [];
  let held = stuck;
  const runHook = (_: Hook, call: HookCall): HookOutcome | Promise<HookOutcome> => {
    const eid = String(call.eid);
    const next = route[eid];
    const tasks: CheckedTask[] = next === undefined ? [] : [task("src", next, "a", Number(call.datapoint?.v))];
    if (eid !== held) return { kind: "answer", tasks };
    return new Promise((resolve) => waiting.push(() => resolve({ kind: "answer", tasks })));
  };
  const hooks: HookTable = {
    onTaskStart: [],
    allowEntityCreation: new Map(),
    onEntityCreation: new Map(),
    onNewAttr: new Map([["src", new Map([["a", [hook("on_new_attr", "src", "a", "next")]]])]]),
  };
  const all = { lagMaxEntries: bound, flushMaxEntities: 1000, ...limits };
  const node = await startSimulatedNode({
    ...{ store, model, hooks, runHook, shards, limits: all, name: "node" },
    dies: () => false,
  });
  return {
    node,
    store,
    letGo: (): void => {
      held = null;
      for (const go of waiting.splice(0)) go();
    },
  };
}

/** A sender outside that sends one datapoint at a time to one entity, as long as it is let. */
function createSender(node: SimulatedNode, eid = "") {
  let number = 0;
  const offer = async (): Promise<PartEvent | undefined> => {
    const events: PartEvent[] = [];
    const part = {
      kind: "part" as const,
      ...{ position: 0, shard: shardOfEid(eid), channel: `c:${eid}`, number: number + 1, predecessor: number },
      ...{ hash: `h${number + 1}`, tasks: [{ ...task("src", eid, "a", number + 1), cause: null }], rejections: [] },
      bytes: 100,
    };
    node.offer([part], (news) => events.push(...news));
    await node.run();
    if (events[0]?.kind === "durable") number++;
    return events[0];
  };
  return {
    sent: () => number,
    offer,
    /** Sends until it is refused; how that was said. */
    fill: async (): Promise<string> => {
      for (let i = 0; i < 20 * bound; i++) {
        const event = await offer();
        // Flushes come with time: what is processed moves the watermarks.
        node.elapse(6000);
        await node.run();
        if (event?.kind === "refused") return `${event.error.code}: ${event.error.message}`;
      }
      return "never refused";
    },
  };
}

async function logged(store: MemoryStore, eid = ""): Promise<number> {
  const log = await store.readLog(shardOfEid(eid), toSeq(0), 100_000);
  const lines = log.flatMap(({ body }) => body.split("\n"));
  return lines.filter((line) => line.startsWith(`d\tsrc\t${eid}\t`)).length;
}

function expectNothingLeft(node: SimulatedNode): void {
  for (const { id, outbox, backlog } of node.lane.shards.values()) {
    const { tasks, bytes, undone, taken, ended } = outbox;
    expect({ tasks, bytes, undone: undone.size, taken: taken.size, ended: ended.length }, `outbox of ${id}`).toEqual({
      ...{ tasks: 0, bytes: 0, undone: 0, taken: 0, ended: 0 },
    });
    expect(backlog.tasks, `backlog of ${id}`).toBe(0);
  }
  expect(node.lane.outboxBytes).toBe(0);
}

async function settle(node: SimulatedNode): Promise<void> {
  for (let i = 0; i < 20; i++) {
    node.elapse(6000);
    await node.run();
  }
}

test("derived work that its target does not get on with closes the outside door of its source (R13, X1)", async () => {
  const { node, store, letGo } = await startWorld({ [first ?? ""]: second ?? "" }, second ?? null);
  const sender = createSender(node, first);
  const said = await sender.fill();
  const shard = node.lane.shards.get(shardOfEid(first));
  expect(said).toBe(
    `BUSY: shard ${shardOfEid(first)} has ${bound} unprocessed tasks, ${bound} of them derived for other shards`,
  );
  expect(sender.sent()).toBe(bound);
  // Everything was delivered, and the source itself has nothing left to do: without its outbox it would take more.
  expect(shard?.backlog.tasks).toBe(0);
  expect(shard?.outbox.sent.length).toBe(shard?.outbox.first);
  expect(await logged(store, second)).toBe(bound);
  // The hook is an obligation by now; that its watermark has passed does not open the door.
  const target = node.lane.shards.get(shardOfEid(second));
  expect(target?.watermark).toBe(target?.durableSeq);
  letGo();
  await settle(node);
  expectNothingLeft(node);
  expect((await sender.offer())?.kind).toBe("durable");
});

test("a target above its own bound still takes outbox parts, and refuses outside ones", async () => {
  const route = { [first ?? ""]: third ?? "", [second ?? ""]: third ?? "" };
  const { node, store, letGo } = await startWorld(route, third ?? null);
  const senders = [createSender(node, first), createSender(node, second)];
  for (const sender of senders) expect(await sender.fill()).toContain("BUSY");
  expect(await logged(store, third)).toBe(2 * bound);
  expect(node.lane.shards.get(shardOfEid(third))?.backlog.tasks).toBe(2 * bound);
  expect(await createSender(node, third).fill()).toContain("BUSY");
  expect(node.lane.world.counters.read()["refused/BUSY"]).toBe(3);
  letGo();
  await settle(node);
  expectNothingLeft(node);
  for (const sender of senders) expect((await sender.offer())?.kind).toBe("durable");
});

test("a shard behind the target closes the door of the source too, over two hops (X1)", async () => {
  const route = { [first ?? ""]: second ?? "", [second ?? ""]: third ?? "" };
  const { node, store, letGo } = await startWorld(route, third ?? null);
  const sender = createSender(node, first);
  expect(await sender.fill()).toContain(`${bound} of them derived for other shards`);
  expect(await logged(store, third)).toBe(bound);
  const between = node.lane.shards.get(shardOfEid(second));
  expect([between?.backlog.tasks, between?.outbox.tasks]).toEqual([0, bound]);
  letGo();
  await settle(node);
  expectNothingLeft(node);
});

test("two shards that derive for each other without end of their own both open again (X2)", async () => {
  const route = { [first ?? ""]: second ?? "", [second ?? ""]: first ?? "" };
  const { node, letGo } = await startWorld(route, second ?? null);
  const senders = [createSender(node, first), createSender(node, second)];
  for (const sender of senders) expect(await sender.fill()).toContain("BUSY");
  letGo();
  await settle(node);
  expectNothingLeft(node);
  for (const sender of senders) expect((await sender.offer())?.kind).toBe("durable");
});

test("the bytes of derived work count as well, by what its values take", async () => {
  const { node, letGo } = await startWorld({ [first ?? ""]: second ?? "" }, second ?? null, {
    ...{ lagMaxEntries: 1e6, lagMaxBytes: 3000 },
  });
  const sender = createSender(node, first);
  expect(await sender.fill()).toMatch(
    /^BUSY: shard \d has (\d+) unprocessed bytes, \1 of them derived for other shards$/,
  );
  letGo();
  await settle(node);
  expectNothingLeft(node);
  expect((await sender.offer())?.kind).toBe("durable");
});

test("a lane counts what its shards have derived for others, wherever these are", async () => {
  const route = { [first ?? ""]: second ?? "" };
  const { node } = await startWorld(route, second ?? null, { lagMaxEntries: 1e6, backlogMaxBytes: 3000 });
  const said = await createSender(node, first).fill();
  const target = node.lane.shards.get(shardOfEid(second));
  expect(said).toBe(`BUSY: the node has ${node.lane.backlogBytes + node.lane.outboxBytes} unprocessed bytes in a lane`);
  expect(target?.backlog.bytes).toBeLessThan(3000);
});

test("a shard that is lost tells the senders of its unfinished parts, who send them to the next owner", async () => {
  const { node, store } = await startWorld({ [first ?? ""]: second ?? "" }, second ?? null);
  const sender = createSender(node, first);
  await sender.offer();
  node.elapse(6000);
  await node.run();
  const target = node.lane.shards.get(shardOfEid(second));
  const events: PartEvent[] = [];
  for (const delivery of target?.outbox.taken ?? [])
    Object.assign(delivery, { listener: (news: readonly PartEvent[]) => events.push(...news) });
  const fences = store.shards.get(shardOfEid(second));
  if (fences !== undefined) fences.epoch++;
  await createSender(node, second).offer();
  await node.run();
  expect(events.map((event) => (event.kind === "refused" ? event.error.code : event.kind))).toEqual(["FENCED"]);
});
