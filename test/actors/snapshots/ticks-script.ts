import { expect } from "vitest";
import { applyDatapoint, applyTtl, clearEntity, createEntity, type Entity } from "../../../actors/lane/entity.ts";
import { writeState } from "../../../actors/lane/entity-state.ts";
import type { Effect } from "../../../actors/lane/lane.ts";
import type { Part, PartTask } from "../../../actors/lane/part.ts";
import { writeTail } from "../../../actors/log/line.ts";
import { type ReadSegment, readSegment } from "../../../actors/log/segment.ts";
import { comparePlaces } from "../../../actors/snapshots/tick-image.ts";
import type { OpenCut } from "../../../actors/snapshots/tick-mark.ts";
import type { Segment } from "../../../actors/store/store.ts";
import type { TickRecord } from "../../../actors/store/tick.ts";
import { type ShardId, toSeq } from "../../../proto/ids.ts";
import { StarlingError } from "../../../proto/starling-error.ts";
import type { MemoryDurable, MemoryShard } from "../../support/memory-durable.ts";
import { copyDurable, createMemoryDurable, writeDurable } from "../../support/memory-durable.ts";
import { createMemoryStore, type MemoryStore } from "../../support/memory-store.ts";
import { type SimulatedNode, startSimulatedNode } from "../../support/simulated-node.ts";
import { fieldsOf } from "../../support/state-fields.ts";
import { createClient } from "../lane/protocol-client.ts";
import type { DeathScript } from "../lane/protocol-deaths.ts";
import { batches, type Found, hooks, inspect, model, removalAt, runHook, shards } from "../lane/protocol-script.ts";

/*
 * The thirty batches of `protocol-script.ts` with two ticks in between. The first one is heard of by one shard, with a part,
 * and spreads with what that derives; the second one by all in the middle of the flow. What pages give is compared with what
 * the log says, again and again until the visit has passed.
 */

/** What happens in one phase, before it is waited for rest. */
type Step =
  | { readonly kind: "send"; readonly upTo: number; readonly tickAt?: number }
  /** The run of a tick begins: whoever reads the table knows. */
  | { readonly kind: "begin"; readonly tick: number }
  | { readonly kind: "learn"; readonly tick: number }
  /** Of every shard another page; or all that are left. */
  | { readonly kind: "visit"; readonly pages: number }
  | { readonly kind: "end" };

const script: readonly (readonly Step[])[] = [
  [{ kind: "send", upTo: 5 }],
  [
    { kind: "begin", tick: 1 },
    { kind: "send", upTo: 10, tickAt: 7 },
  ],
  [
    { kind: "learn", tick: 1 },
    { kind: "send", upTo: 12 },
  ],
  [
    { kind: "visit", pages: 1 },
    { kind: "send", upTo: removalAt },
  ],
  [{ kind: "send", upTo: removalAt + 1 }],
  [
    { kind: "visit", pages: 1 },
    { kind: "send", upTo: 24 },
  ],
  [
    { kind: "visit", pages: 100 },
    { kind: "end" },
    { kind: "begin", tick: 2 },
    { kind: "send", upTo: 27 },
    { kind: "learn", tick: 2 },
    { kind: "send", upTo: batches.length },
  ],
  [{ kind: "visit", pages: 100 }, { kind: "end" }],
];

const sentAt = (phase: number): number =>
  script
    .slice(0, phase)
    .flat()
    .reduce((most, step) => (step.kind === "send" ? step.upTo : most), 0);

interface World {
  readonly durable: MemoryDurable;
  readonly acked: Set<number>;
  phase: number;
}

/** Pages that were compared, by tick: so that a test knows that there were any. */
export type Pages = Map<number, number>;

export function createTicksScript(slow: Effect["kind"] | null, pages: Pages = new Map()): DeathScript<World, Found> {
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
      const node = await startSimulatedNode({
        ...{ store, model, hooks, runHook, shards, name: `node-${life}`, slow, dies },
        // What a visit would read at once, and again later.
        onCutOpen: (cut) => comparePage(store, cut, pages),
      });
      if (life > 0) client.reconnect();
      if (world.durable.tick > 0 && world.phase > 1) node.tell({ kind: "learn-tick", tick: world.durable.tick });
      await node.run();
      const take = async (step: Step): Promise<void> => {
        switch (step.kind) {
          case "send":
            return client.offer(tickedAt(node, step.tickAt), 0, step.upTo);
          case "begin":
            world.durable.tick = step.tick;
            return;
          case "learn":
            return node.tell({ kind: "learn-tick", tick: step.tick });
          case "visit":
            for (const cut of unvisited(world.durable)) await visit({ store, node, pages }, cut, step.pages);
            return;
          case "end":
            world.durable.tick = 0;
        }
      };
      client.offer(node, 0, sentAt(world.phase));
      await node.run();
      for (; world.phase < script.length; world.phase++) {
        for (const step of script[world.phase] ?? []) await take(step);
        await node.run();
        for (const cut of unvisited(world.durable)) await comparePage(store, cut, pages);
        expectOrder(world.durable);
      }
      for (const shard of node.lane.shards.values()) {
        expect(shard.watermark, `watermark of shard ${shard.id}`).toBe(shard.durableSeq);
        expect(shard.tick, `tick of shard ${shard.id}`).toBe(2);
        expect(shard.cut, `cut of shard ${shard.id}`).toBeNull();
      }
      expect(unvisited(world.durable)).toEqual([]);
      expect(client.acked.size).toBe(batches.length);
      return inspect(store);
    },
  };
}

/** A node whose parts of one batch say that tick 1 runs: those of its first shard. */
function tickedAt(node: SimulatedNode, tickAt: number | undefined): SimulatedNode {
  const tell = (part: Part): Part => (part.number === tickAt && part.position === 0 ? { ...part, tick: 1 } : part);
  return { ...node, offer: (parts, listener) => node.offer(parts.map(tell), listener) };
}

/** What a run would find in the table. */
export function unvisited({ shards: all }: MemoryDurable): Pick<OpenCut, "shard" | "tick">[] {
  return [...all].flatMap(([shard, { marks }]) => {
    const mark = marks.at(-1);
    return mark === undefined || mark.visited ? [] : [{ shard, tick: mark.tick }];
  });
}

export interface Visitor {
  readonly store: MemoryStore;
  readonly node: Pick<SimulatedNode, "tell">;
  readonly pages: Pages;
}

const limit = 2;

/** Passes some pages, as a visit would: durably, then the owner is told. */
export async function visit(
  { store, node, pages }: Visitor,
  { shard, tick }: Pick<OpenCut, "shard" | "tick">,
  count: number,
): Promise<void> {
  const durable = store.durable.shards.get(shard);
  for (let left = count; left > 0; left--) {
    const mark = durable?.marks.findIndex((one) => one.tick === tick) ?? -1;
    const known = durable?.marks[mark];
    if (durable === undefined || known === undefined || known.visited) return;
    await comparePage(store, { shard, tick }, pages);
    const { last } = await store.readTickPage({ shard, tick, after: known.passed, limit, maxBytes: 1e9 }, () => []);
    durable.marks[mark] = { ...known, passed: last ?? known.passed, visited: last === null };
    for (const [key, image] of durable.images) {
      if (image.tick <= tick && (last === null || comparePlaces(image, last) <= 0)) durable.images.delete(key);
    }
    node.tell({ kind: "pass-tick", pass: { shard, tick, to: last } });
  }
}

/** C1: what is left to be visited is what the log up to the mark makes of it. */
export async function comparePage(
  store: MemoryStore,
  { shard, tick }: Pick<OpenCut, "shard" | "tick">,
  pages: Pages,
): Promise<void> {
  const durable = store.durable.shards.get(shard);
  const mark = durable?.marks.find((one) => one.tick === tick);
  // A mark of a tick that is over means nothing any more.
  if (durable === undefined || mark === undefined || mark.visited || durable.marks.at(-1)?.tick !== tick) return;
  const after = mark.passed;
  const page = await store.readTickPage({ shard, tick, after, limit: 1000, maxBytes: 1e9 }, () => []);
  const wanted = [...stateAt(durable, mark.seq).values()].filter(
    ({ exists, entity }) =>
      exists && (after === null || comparePlaces({ eid: entity.eid, type: entity.spec.id }, after) > 0),
  );
  const what = `shard ${shard} at mark ${mark.seq} of tick ${tick}`;
  expect(page.records.map(textOfRecord).sort(), what).toEqual(wanted.map(textOfReplayed).sort());
  pages.set(tick, (pages.get(tick) ?? 0) + 1);
}

const textOfRecord = ({ type, eid, state, rows }: TickRecord): string =>
  `${type} ${eid} ${JSON.stringify(fieldsOf(state))} ${rows.map(({ body }) => body).join("\n")}`;

/** What the log makes of an entity. */
interface Replayed {
  readonly entity: Entity;
  exists: boolean;
  history: string[];
}

const textOfReplayed = ({ entity, history }: Replayed): string =>
  `${entity.spec.id} ${entity.eid} ${JSON.stringify(fieldsOf(writeState(entity, "whole")))} ${history.join("\n")}`;

/** All entities of a shard after the entries up to a seq. */
function stateAt(shard: MemoryShard, upTo: number): ReadonlyMap<string, Replayed> {
  const found = new Map<string, Replayed>();
  for (const segment of shard.log) {
    for (const { seq, logged } of read(segment).tasks) {
      if (seq > upTo || logged.task instanceof StarlingError || shard.refused.has(seq)) continue;
      const { task } = logged;
      const key = `${task.entity.id}\t${task.eid}`;
      const known = found.get(key) ?? {
        entity: createEntity(task.entity, task.eid, task.eidValue),
        exists: false,
        history: [],
      };
      found.set(key, known);
      replay(known, task, seq, segment.at);
    }
  }
  return found;
}

function replay(known: Replayed, task: PartTask, seq: number, at: number): void {
  const { entity } = known;
  if (task.delete) {
    clearEntity(entity);
    known.exists = false;
    known.history = [];
    return;
  }
  known.exists = true;
  if (task.ttlTokens !== null) applyTtl(entity, task.ttlTokens);
  for (const datapoint of task.datapoints) {
    applyDatapoint(entity, datapoint, toSeq(seq), at);
    if (datapoint.spec.kind !== "plain") known.history.push(writeTail(datapoint));
  }
}

/** What stands in the log is read once. */
const known = new WeakMap<Segment, ReadSegment>();

function read(segment: Segment): ReadSegment {
  const found = known.get(segment) ?? readSegment(segment, model);
  known.set(segment, found);
  return found;
}

/** C2 and C3, over all logs. */
export function expectOrder({ shards: all }: MemoryDurable): void {
  const marks = new Map<string, number>();
  const logs = [...all].map(([shard, { log }]) => ({
    shard,
    segments: log.map(read),
  }));
  for (const { shard, segments } of logs) {
    const own = segments.flatMap((segment) => segment.marks);
    const ticks = own.map(({ tick }) => tick);
    expect(ticks, `marks of shard ${shard}`).toEqual([...new Set(ticks)].sort((a, b) => a - b));
    for (const { tick, seq } of own) marks.set(`${tick} ${shard}`, seq);
  }
  const markOf = (tick: number, shard: ShardId): number => marks.get(`${tick} ${shard}`) ?? Number.POSITIVE_INFINITY;
  for (const { shard, segments } of logs) {
    for (const { seq, cause } of segments.flatMap((segment) => segment.tasks)) {
      if (cause === null) continue;
      for (const tick of new Set([...marks.keys()].map((key) => Number(key.split(" ")[0])))) {
        if (seq > markOf(tick, shard) || cause.seq <= markOf(tick, cause.shard)) continue;
        const text = `${shard}/${seq} shows in tick ${tick} what ${cause.shard}/${cause.seq} caused, which does not`;
        throw new Error(text);
      }
    }
  }
}
