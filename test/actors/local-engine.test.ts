import { expect, test } from "vitest";
import { createCounters } from "../../actors/counters.ts";
import { createEnding } from "../../actors/ending.ts";
import type { HookCall } from "../../actors/hooks/hook-call.ts";
import type { HookOutcome } from "../../actors/hooks/hook-outcome.ts";
import { startLocalEngine } from "../../actors/start-local-engine.ts";
import type { Hook } from "../../modules/hook.ts";
import { type ShardId, toNodeId, toSeq } from "../../proto/ids.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import { createManualClock, type ManualClock } from "../support/manual-clock.ts";
import { createMemoryStore } from "../support/memory-store.ts";
import { simulationLimits } from "../support/simulated-node.ts";
import { all, eids, noHooks, split } from "./lane/hand-off-world.ts";
import * as script from "./lane/protocol-script.ts";
import { model, shards, task } from "./lane/protocol-script.ts";

const own = script.hook("on_new_attr", "src", "a", "own");
const born = script.hook("on_entity_creation", "src", null, "born");

/** Lets time pass until something has ended. */
function settler(clock: ManualClock) {
  return async <T>(promise: Promise<T>): Promise<T> => {
    let status: "open" | "settled" = "open";
    const ended = promise.finally(() => {
      status = "settled";
    });
    for (let i = 0; i < 1000 && status === "open"; i++) await clock.advance(10);
    return ended;
  };
}

type Run = (hook: Hook, call: HookCall) => HookOutcome | Promise<HookOutcome>;

/** A store, and engines that own shards one after another. */
function createWorld() {
  const store = createMemoryStore();
  const clock = createManualClock();
  const settle = settler(clock);
  const hooks = {
    ...{ onTaskStart: [], allowEntityCreation: new Map(), onEntityCreation: new Map([["src", [born]]]) },
    onNewAttr: new Map([["src", new Map([["a", [own]]])]]),
  };
  const start = async (name: string, runHook: Run) => {
    const engine = startLocalEngine({
      ...{ identity: { id: toNodeId(name) }, queries: store, model, hooks, clock, entityShards: shards, lanes: 1 },
      ...{ databases: 2, store, counters: createCounters(), limits: simulationLimits, wall: () => 0 },
      ...{ log: { info: () => {}, warn: () => {}, error: () => {} }, runHook, abandon: () => {} },
      newSessionId: () => "s",
    });
    await settle(engine.own(await store.acquire(toNodeId(name), all)));
    return engine;
  };
  return { store, clock, settle, start };
}

test("shards whose hooks are tried one after another are left with what is known of them by a node that stops (R17)", async () => {
  const { store, clock, settle, start } = createWorld();
  const never = () => new Promise<HookOutcome>(() => {});
  const first = await start("first", never);
  first.offer(
    split(
      eids.map((eid, v) => task("src", eid, "a", v)),
      1,
    ).parts,
    () => {},
  );
  await clock.advance(1000);
  const marks = () => [...store.shards.values()].map(({ attempt }) => attempt);
  for (const name of ["second", "third", "fourth", "fifth"]) {
    const engine = await start(name, never);
    await clock.advance(100);
    expect(marks().filter((mark) => mark !== null && mark.to >= mark.from).length, name).toBeGreaterThan(0);
    const fences = await settle(engine.close());
    expect(fences.map(({ shard }) => shard).sort()).toEqual(all);
    await store.release(fences, toNodeId(name));
    // Nobody died.
    expect(marks().map((mark) => mark && [mark.to < mark.from, mark.until >= mark.from, mark.deaths])).toEqual(
      all.map(() => [true, true, 0]),
    );
  }
});

test("what a node that stops has given up it tells, also when another of its shards could not leave in time (R17)", async () => {
  const { store, clock, start } = createWorld();
  const never = () => new Promise<HookOutcome>(() => {});
  const first = await start("first", never);
  const tasks = eids.map((eid, v) => task("src", eid, "a", v));
  first.offer(split(tasks, 1).parts, () => {});
  await clock.advance(1000);
  const second = await start("second", never);
  await clock.advance(100);
  const { flush } = store;
  // PostgreSQL answers one of the lanes no more.
  Object.assign(store, {
    flush: (...[node, request]: Parameters<typeof flush>) =>
      request.order?.lane === 1 ? new Promise(() => {}) : flush(node, request),
  });
  const closing = second.close();
  await clock.advance(60_000);
  expect((await closing).map(({ shard }) => shard).sort()).toEqual(all.filter((shard) => shard % 2 === 0));
});

test("a node that stops writes what it has to a database that answers, whichever other one does not", async () => {
  const { store, clock, settle, start } = createWorld();
  const engine = await start("first", () => ({ kind: "answer", tasks: [] }));
  const { flush } = store;
  let isAway = true;
  Object.assign(store, {
    flush: async (...[node, request]: Parameters<typeof flush>) => {
      if (isAway) throw new StarlingError("STORE", "away");
      return request.order?.lane === 1 ? new Promise(() => {}) : flush(node, request);
    },
  });
  const tasks = eids.map((eid, v) => task("src", eid, "a", v));
  engine.offer(split(tasks, 1).parts, () => {});
  await clock.advance(5_000);
  // Each lane has a database of its own. The first one's is back, the other one's stays away.
  isAway = false;
  const pings = [() => Promise.resolve(), () => new Promise<void>(() => {})];
  const beganMs = clock.now();
  await settle(engine.close(createEnding({ clock, withinMs: 45_000, pings })));
  expect(clock.now() - beganMs).toBeLessThan(5_000);
  const written = all.filter((id) => (store.shards.get(id)?.entities.size ?? 0) > 0);
  expect(written.sort()).toEqual(all.filter((shard) => shard % 2 === 0));
});

test("in another world a record is behind every seq that only the one before can have given out (R24, R25)", async () => {
  const { store, clock, settle, start } = createWorld();
  const answered = (): HookOutcome => ({ kind: "answer", tasks: [] });
  const [eid = ""] = eids;
  const first = await start("first", answered);
  first.offer(split([task("src", eid, "a", 1)], 1).parts, () => {});
  await clock.advance(5_000);
  const place = (await settle(first.get("src", eid, null)))?.place;
  if (place === undefined) throw new Error("the record is there");
  store.promote();
  let engine = await start("second", answered);
  const at = (seq: number): Promise<unknown> =>
    settle(
      engine.get("src", eid, { ...place, seq: toSeq(seq) }).then(
        (record) => record?.place.seq,
        (error: StarlingError) => error.code,
      ),
    );
  const above = store.shards.get(place.shard)?.above ?? 0;
  expect([await at(place.seq), await at(place.seq + 1), await at(above - 1)]).toEqual([place.seq, "BEHIND", "BEHIND"]);
  await clock.advance(5_000);
  expect(store.shards.get(place.shard)?.watermark, "the watermark passes what nobody has").toBe(above);
  engine.offer(split([task("src", eid, "a", 2)], 2).parts, () => {});
  await clock.advance(5_000);
  for (const name of ["second", "third"]) {
    if (name === "third") engine = await start(name, answered);
    expect([await at(place.seq + 1), await at(above + 1)], name).toEqual(["BEHIND", above + 1]);
  }
});

test("a dead letter waits until the record it is of is there again (R20)", async () => {
  const { store, clock, settle, start } = createWorld();
  const nothing: HookOutcome = { kind: "answer", tasks: [] };
  const error = new StarlingError("HOOK_FAILED", "not yet");
  const first = await start("first", ({ name }) => (name === "own" ? { kind: "failed", error, attempts: 1 } : nothing));
  first.offer(split([task("src", eids[0] ?? "", "a", 1)], 1).parts, () => {});
  await clock.advance(3000);
  const [letter] = await store.deadLetters({ after: "", limit: 9, status: "open" });
  // What it had written of the entity itself is lost: its flush came to nothing.
  for (const id of all) Object.assign(store.shards.get(id) ?? {}, { watermark: 0, entities: new Map() });
  let letGo = (): void => {};
  const records: unknown[] = [];
  const second = await start("second", ({ name }, call) => {
    if (name === "born") return new Promise((resolve) => (letGo = () => resolve(nothing)));
    records.push(call.record?.eid);
    return nothing;
  });
  await clock.advance(1000);
  const early = second.replayDeadLetter(letter?.id ?? "").catch((refused: StarlingError) => refused.code);
  expect(await settle(early)).toBe("BEHIND");
  letGo();
  await clock.advance(1000);
  expect(await settle(second.replayDeadLetter(letter?.id ?? ""))).toMatchObject({ status: "replayed" });
  expect(records).toEqual([eids[0]]);
});

test("a local engine takes shards in, gives them up, and loses them; it writes under the identity of the moment", async () => {
  const store = createMemoryStore();
  const clock = createManualClock();
  const identity = { id: toNodeId("first") };
  let failures = 2;
  const aborted: ShardId[] = [];
  const engine = startLocalEngine({
    ...{ identity, queries: store, model, hooks: noHooks, clock, entityShards: shards, lanes: 2, databases: 1 },
    store: {
      ...store,
      readLog: async (...args) => {
        if (failures-- > 0) throw new StarlingError("STORE", "away");
        return store.readLog(...args);
      },
    },
    ...{ counters: createCounters(), limits: simulationLimits, wall: () => 0, newSessionId: () => "s" },
    ...{ log: { info: () => {}, warn: () => {}, error: () => {} }, runHook: script.runHook },
    abandon: (shard) => void aborted.push(shard),
  });
  const settle = settler(clock);
  const said: string[] = [];
  const offer = async (number: number): Promise<void> => {
    const { parts } = split(
      eids.map((eid, v) => task("src", eid, "a", number * 10 + v)),
      number,
    );
    engine.offer(parts, (news) => {
      for (const event of news) said.push(event.kind === "refused" ? event.error.code : event.kind);
    });
    await clock.advance(3000);
  };
  await offer(1);
  expect(said.splice(0)).toEqual(Array(4).fill("MOVED"));
  await settle(engine.own(await store.acquire(identity.id, all)));
  await offer(1);
  expect(said.splice(0).sort()).toEqual([...Array(4).fill("durable"), ...Array(4).fill("processed")]);
  expect(await settle(engine.giveUp(all.slice(0, 3), 50))).toHaveLength(3);
  expect(all.map(engine.owns)).toEqual([false, false, false, true]);
  expect(await settle(engine.giveUp(all.slice(0, 1), 50))).toEqual([]);
  await expect(engine.get("src", eids[0] ?? "", null)).rejects.toMatchObject({ code: "MOVED" });
  // The node was expelled: what it still has is another's, and it says so when it writes.
  identity.id = toNodeId("second");
  const lost: ShardId[] = [];
  engine.onLost((ids) => void lost.push(...ids));
  await offer(2);
  expect(said.splice(0).sort()).toEqual(["FENCED", "MOVED", "MOVED", "MOVED"]);
  expect([lost, aborted]).toEqual([all.slice(3), all.slice(3)]);
  // A log that has something to replay, and a store that fails twice.
  await store.append(identity.id, { fences: [], segments: [] });
  for (const id of all) Object.assign(store.shards.get(id) ?? {}, { watermark: 0 });
  await settle(engine.own(await store.acquire(identity.id, all)));
  expect(failures).toBeLessThan(0);
  expect(await settle(engine.get("src", eids[0] ?? "", null))).toMatchObject({ view: { eid: eids[0] } });
  engine.drop(all.slice(0, 1));
  await clock.advance(10);
  expect((await settle(engine.close())).map(({ shard }) => shard).sort()).toEqual(all.slice(1));
  expect(await engine.close()).toHaveLength(3);
});
