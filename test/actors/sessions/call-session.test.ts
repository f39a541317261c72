import { expect, test } from "vitest";
import type { Part } from "../../../actors/lane/part.ts";
import { splitBatch } from "../../../actors/sessions/batch.ts";
import { type CallChannel, type CallOptions, CallSession } from "../../../actors/sessions/call-session.ts";
import { looseOf } from "../../../actors/sessions/wire-datapoint.ts";
import type { StoredSession } from "../../../actors/store/store.ts";
import { toWireValue } from "../../../proto/client-batch.ts";
import { toSessionId } from "../../../proto/ids.ts";
import { StarlingError } from "../../../proto/starling-error.ts";
import { createFakeEngine, type FakeEngine } from "../../support/fake-engine.ts";
import { createManualClock } from "../../support/manual-clock.ts";
import { createMemoryStore } from "../../support/memory-store.ts";
import { testModel } from "../../support/test-model.ts";

const model = testModel({ thing: { name: { kind: "plain", type: "string" } } });
const limits = { maxCalls: 2, maxBytes: 1_000_000 };

function open(engine: FakeEngine, more: Partial<typeof limits> = {}) {
  const clock = createManualClock();
  const calls = new CallSession({ engine, clock, ...limits, ...more });
  const send = (eid: string, call: Partial<CallOptions> = {}) => {
    const split = ({ channel, number, homeShard }: CallChannel) => {
      const datapoints = [{ type: "thing", eid, attr: "name", v: toWireValue("x") }];
      const batch = { number, atomic: false, hash: `hash of ${eid}`, bytes: 100, datapoints };
      return splitBatch(batch, { model, entityShards: engine.entityShards, channel, homeShard, read: looseOf });
    };
    const signal = new AbortController().signal;
    const options = { level: "durable", deadlineMs: 1000, signal, idempotencyKey: "", hash: `hash of ${eid}` } as const;
    return calls.send(split, { ...options, ...call });
  };
  return { clock, calls, send };
}

const isShared = (part: Part): boolean => part.channel.startsWith("c:fake-");
const changed = new StarlingError("BATCH_CHANGED", "other content");

test("a key that comes with other content leaves the calls without a key their session", async () => {
  const engine = createFakeEngine();
  const { send } = open(engine);
  await send("a");
  await send("b", { idempotencyKey: "k" });
  await expect(send("b", { idempotencyKey: "k" })).resolves.toBeDefined();
  engine.refuse = (part) => (isShared(part) ? null : changed);
  for (let i = 0; i < 5; i++) await expect(send("c", { idempotencyKey: "k" })).rejects.toThrow(/other content/);
  await send("d");
  expect([...engine.world.sessions.keys()].sort()).toEqual(["fake-1", "key:k"]);
});

test("a shared session in which something failed for good is closed, and followed by another", async () => {
  const engine = createFakeEngine();
  const { send } = open(engine);
  await send("a");
  engine.refuse = (part) => (part.tasks.some(({ eid }) => eid === "bad") ? changed : null);
  await expect(send("bad")).rejects.toThrow(/other content/);
  await send("b");
  expect(engine.world.sessions.get("fake-1")?.closed).toBe(true);
  expect(engine.world.sessions.get("fake-2")?.closed).toBe(false);
});

test("calls after one that met a bug go on in another session, and those under way are not answered wrongly", async () => {
  const engine = createFakeEngine();
  const { send } = open(engine);
  await send("a");
  const { offer } = engine;
  engine.hold();
  const held = send("b");
  await expect.poll(() => engine.offered.length).toBe(1);
  Object.assign(engine, {
    offer: () => {
      throw new TypeError("a bug");
    },
  });
  await expect(send("c")).rejects.toThrow("a bug");
  Object.assign(engine, { offer });
  engine.release();
  await held;
  await send("d");
  expect([...engine.world.sessions.keys()]).toEqual(["fake-1", "fake-2"]);
});

test("an idempotency key is a name: neither long nor odd", async () => {
  const { send } = open(createFakeEngine());
  await expect(send("a", { idempotencyKey: "k".repeat(201) })).rejects.toMatchObject({ code: "TOO_LARGE" });
  for (const idempotencyKey of ["a\0b", "a\nb", "a\x7f", "\ud800"]) {
    await expect(send("a", { idempotencyKey })).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
      message: "an idempotency key holds a control character",
    });
  }
  await send("a", { idempotencyKey: "k".repeat(200) });
});

test("who gives up while a session is being opened keeps the place until it is, and nothing is sent", async () => {
  const engine = createFakeEngine();
  let resolve = (): void => {};
  const opening = new Promise<void>((done) => {
    resolve = done;
  });
  const { openSession } = engine;
  const slowly = async (...args: Parameters<typeof openSession>): Promise<StoredSession> => {
    await opening;
    return await openSession(...args);
  };
  const { clock, send } = open({ ...engine, openSession: slowly });
  const late = ["k1", "k2"].map((key) => send("a", { idempotencyKey: key }).catch((error: unknown) => error));
  await clock.advance(1000);
  for (const error of await Promise.all(late)) expect(error).toMatchObject({ code: "DEADLINE" });
  await expect(send("b")).rejects.toMatchObject({ code: "BUSY", message: expect.stringContaining("2 calls") });
  resolve();
  await expect.poll(() => engine.world.sessions.size).toBe(2);
  await send("b");
  expect(engine.world.applied.map(({ eid }) => eid)).toEqual(["b"]);
});

test("a key that comes with other content is refused wherever that would go, and before anything is sent", async () => {
  const engine = createFakeEngine();
  const store = createMemoryStore();
  const openSession: FakeEngine["openSession"] = (session, opening) =>
    store.openSession(toSessionId(session === "" ? "drawn" : session), { ...opening, begins: true });
  const { send } = open({ ...engine, openSession });
  await send("a", { idempotencyKey: "k" });
  await expect(send("b", { idempotencyKey: "k" })).rejects.toMatchObject({
    code: "BATCH_CHANGED",
    message: "the idempotency key k came back with other content",
  });
  await send("b", { idempotencyKey: "l" });
  await send("b");
  await send("a", { idempotencyKey: "k" });
  expect(engine.world.applied.map(({ eid }) => eid)).toEqual(["a", "b", "b"]);
});

test("who gives up while a part rests holds no bytes any longer", async () => {
  const engine = createFakeEngine();
  engine.refuse = (part) => (part.channel.startsWith("c:key:") ? new StarlingError("BUSY", "later") : null);
  const { clock, send } = open(engine, { maxBytes: 150 });
  const late = send("a", { idempotencyKey: "k" }).catch((error: unknown) => error);
  await expect.poll(() => clock.timers, { interval: 1 }).toBeGreaterThan(1);
  await clock.advance(1000);
  expect(await late).toMatchObject({ code: "DEADLINE" });
  await send("b");
  expect(engine.world.applied.map(({ eid }) => eid)).toEqual(["b"]);
});
