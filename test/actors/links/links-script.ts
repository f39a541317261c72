import { createCounters } from "../../../actors/counters.ts";
import type { Effect } from "../../../actors/lane/lane.ts";
import type { PartTask } from "../../../actors/lane/part.ts";
import { startLinkKeeper } from "../../../actors/links/link-keeper.ts";
import type { SplitBatch } from "../../../actors/sessions/batch.ts";
import type { OpenBatch } from "../../../actors/sessions/session.ts";
import type { Obituaries } from "../../../actors/store/stored-link.ts";
import { checkTask } from "../../../modules/check-task.ts";
import type { CheckedTask, DerivedTask } from "../../../modules/datapoint.ts";
import type { HookTable } from "../../../modules/hook.ts";
import { shardId } from "../../../proto/ids.ts";
import { shardOf } from "../../../proto/shard-of.ts";
import { configModel } from "../../support/config-model.ts";
import type { MemoryDurable } from "../../support/memory-durable.ts";
import { copyDurable, createMemoryDurable, writeDurable } from "../../support/memory-durable.ts";
import type { MemoryStore } from "../../support/memory-store.ts";
import { createMemoryStore } from "../../support/memory-store.ts";
import { type SimulatedNode, startSimulatedNode } from "../../support/simulated-node.ts";
import { fieldsOf } from "../../support/state-fields.ts";
import { createClient } from "../lane/protocol-client.ts";
import type { DeathScript } from "../lane/protocol-deaths.ts";
import { shards } from "../lane/protocol-script.ts";

/** Buses that link to lines and stops, over every kind of link; a stop and a bus are deleted, and the bus comes back. */
export const model = configModel({
  bus: {
    line: "plain link<line>",
    stops: "plain set<link<stop>>",
    at: "observations link<stop>",
    near: "observations array<link<stop>>",
  },
  line: { name: "plain string" },
  stop: { name: "plain string", next: "plain link<stop>" },
});

export const noHooks: HookTable = {
  onTaskStart: [],
  allowEntityCreation: new Map(),
  onEntityCreation: new Map(),
  onNewAttr: new Map(),
};

type Datapoints = NonNullable<DerivedTask["datapoints"]>;

export function taskOf(type: string, eid: string, ...datapoints: Datapoints): CheckedTask {
  return checkTask(model, { type, eid, datapoints });
}

export function deletionOf(type: string, eid: string): CheckedTask {
  return checkTask(model, { type, eid, delete: true });
}

const link = (eid: string) => ({ eid });
const links = (...eids: string[]) => eids.map(link);

/** Batches, in groups: each is sent when all before it is quiet. */
export const phases: readonly (readonly (readonly CheckedTask[])[])[] = [
  [
    [taskOf("stop", "s1", { attr: "name", v: "One" }), taskOf("stop", "s2", { attr: "next", v: link("s1") })],
    [taskOf("bus", "b1", { attr: "line", v: link("l1") }, { attr: "stops", v: links("s1", "s2", "s3") })],
    [taskOf("bus", "b2", { attr: "line", v: link("l1") }), taskOf("bus", "b2", { attr: "stops", v: links("s2") })],
    [taskOf("bus", "b1", { attr: "at", v: link("s1"), t1: 1000, t2: 2000 })],
    [
      taskOf("bus", "b1", { attr: "at", v: link("s1"), t1: 1500, t2: 3000 }, { attr: "at", v: link("s2"), t1: 5000 }),
      taskOf("bus", "b1", { attr: "near", v: links("s2", "s4"), t1: 1000, t2: 1100 }),
    ],
    [taskOf("bus", "b1", { attr: "line", v: link("l2") }, { attr: "stops", v: links("s2", "s4") })],
    [
      taskOf("bus", "b1", { attr: "line", v: link("l2") }),
      taskOf("bus", "b1", { attr: "near", v: links("s4"), t1: 9000 }),
    ],
  ],
  [[deletionOf("stop", "s2")]],
  [[deletionOf("bus", "b2")]],
  [[taskOf("bus", "b2", { attr: "line", v: link("l1") })], [taskOf("stop", "s2", { attr: "next", v: link("s2") })]],
  [[deletionOf("stop", "s2"), deletionOf("line", "unknown")]],
  // Deleted before its link is stored.
  [[taskOf("stop", "s5", { attr: "next", v: link("s1") })], [deletionOf("stop", "s5")]],
];

const batches = phases.flat();

interface World {
  readonly durable: MemoryDurable;
  readonly acked: Set<number>;
  phase: number;
}

export function createLinksScript(slow: Effect["kind"] | null): DeathScript<World, string[]> {
  return {
    begin: () => ({ durable: createMemoryDurable(), acked: new Set(), phase: 0 }),
    copy: ({ durable, acked, phase }) => ({ durable: copyDurable(durable), acked: new Set(acked), phase }),
    write: ({ durable, acked, phase }) => `${phase} ${[...acked].sort()} ${writeDurable(durable)}`,
    live: async (world, life, onEffect) => {
      const store = createMemoryStore(world.durable);
      const client = createClient(batches, world.acked);
      const dies = (): boolean => {
        onEffect();
        return false;
      };
      const runHook = () => ({ kind: "answer", tasks: [] }) as const;
      const of = { store, model, hooks: noHooks, runHook, shards, name: `node-${life}`, slow, dies };
      const node = await startSimulatedNode(of);
      if (life > 0) client.reconnect();
      await node.run();
      const ends = phases.map((_, phase) => phases.slice(0, phase + 1).flat().length);
      if (world.phase > 0) {
        client.offer(node, 0, ends[world.phase - 1] ?? 0);
        await node.run();
      }
      for (; world.phase < phases.length; world.phase++) {
        client.offer(node, 0, ends[world.phase] ?? 0);
        await node.run();
        await keepLinks(store, [node], `keeper-${life}-${world.phase}`);
      }
      for (const shard of node.lane.shards.values()) {
        if (shard.watermark !== shard.durableSeq) throw new Error(`shard ${shard.id} has not processed its log`);
      }
      return inspectLinks(store);
    },
  };
}

/** Has the keeper do its work, by nodes that have come to rest, and what it sends. Returns how many obituaries are left. */
export async function keepLinks(
  store: Obituaries,
  nodes: readonly SimulatedNode[],
  session = "keeper",
  of = model,
): Promise<number> {
  let number = 0;
  const keeper = startLinkKeeper({
    obituaries: store,
    calls: { send: (split) => sendCall(nodes, split({ channel: `c:${session}`, number: ++number, homeShard })) },
    model: of,
    shardOf: (type, eid) => shardOf("entity", type, eid, shards),
    shards: () => nodes.flatMap(({ lane }) => [...lane.shards.keys()]),
    news: () => 0,
    clock: { now: () => 0, after: () => () => {}, soon: (run) => run() },
    counters: createCounters(),
    log: { warn: () => {} },
  });
  const left = await keeper.keep();
  await keeper.close();
  return left;
}

const homeShard = shardId("entity", 0);

/** Offers what a call sends to the nodes that own its shards; they come to rest. */
export async function sendCall(nodes: readonly SimulatedNode[], { parts, ...batch }: SplitBatch): Promise<OpenBatch> {
  let durable = 0;
  for (const node of nodes) {
    const own = parts.filter(({ shard }) => node.lane.shards.has(shard));
    node.offer(own, (news) => {
      for (const { kind } of news) if (kind === "durable") durable++;
    });
    await node.run();
  }
  if (durable < parts.length) throw new Error("what the keeper sent is not durable");
  return { ...batch, parts: [], rejections: [] } as unknown as OpenBatch;
}

/** Every link as its row tells it, every plain link of a record, and what is amiss. */
export function inspectLinks({ shards: stored }: MemoryStore): string[] {
  const found: string[] = [];
  for (const [shard, { links: ofShard, entities, obituaries }] of stored) {
    for (const [key, rows] of ofShard) {
      const [type = "", eid = ""] = key.split("\t");
      if (shardOf("entity", type, eid, shards) !== shard) found.push(`${key} stands in shard ${shard}`);
      for (const row of rows) {
        const times = row.spans === null ? "plain" : row.spans.map((span) => `${span.from}–${span.to}`).join(", ");
        found.push(`${type} ${eid} ${row.attr} → ${row.type} ${row.eid}: ${times}`);
      }
    }
    for (const { type, eid, state, tombstone } of entities.values()) {
      if (!tombstone) found.push(...plainLinks(type, eid, state).map((text) => `record: ${text}`));
    }
    for (const { seq, dead } of obituaries.values()) found.push(`not buried: ${seq} ${JSON.stringify(dead)}`);
  }
  return found.sort();
}

function plainLinks(type: string, eid: string, state: string): string[] {
  const fields = fieldsOf(state);
  return Object.entries(fields).flatMap(([attr, { v }]) => {
    const spec = model.entities.get(type)?.attributes.get(attr);
    if (spec?.relation === null || spec?.kind !== "plain") return [];
    const values = (Array.isArray(v) ? v : [v]) as { readonly eid: string }[];
    return values.map((one) => `${type} ${eid} ${attr} → ${spec.relation?.target} ${one.eid}`);
  });
}

export function partTask(task: CheckedTask): PartTask {
  return { ...task, cause: null };
}
