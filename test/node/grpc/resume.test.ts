import { setTimeout as delay } from "node:timers/promises";
import { afterEach, expect, test } from "vitest";
import type { GrpcServer } from "../../../node/grpc/server.ts";
import { type Client, type ConnectOptions, connect } from "../../../proto/client.ts";
import { StarlingError } from "../../../proto/starling-error.ts";
import { startCutProxy } from "../../support/cut-proxy.ts";
import { createFakeEngine, createFakeWorld, type FakeEngine, type FakeWorld } from "../../support/fake-engine.ts";
import { startEdge, until } from "../../support/grpc-edge.ts";

const closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

const point = (eid: string, v: unknown = "x") => ({ type: "thing", eid, attr: "name", v });

async function client(address: string, rest: Partial<ConnectOptions> = {}): Promise<Client> {
  const one = await connect({ address, connectMs: 5_000, giveUpAfterMs: 8_000, ...rest });
  closers.push(() => one.close());
  return one;
}

async function node(world: FakeWorld): Promise<{ engine: FakeEngine; server: GrpcServer }> {
  const engine = createFakeEngine(world);
  const server = await startEdge(engine);
  closers.push(() => server.close());
  return { engine, server };
}

/** Every datapoint once, and per entity in the order in which it was sent. */
function expectExactlyOnce(world: FakeWorld, batches: number, perBatch: number): void {
  const seen = world.applied.map((one) => `${one.eid} ${one.v}`);
  expect(seen.length).toBe(batches * perBatch);
  expect(new Set(seen).size).toBe(seen.length);
  for (let e = 0; e < perBatch; e++) {
    const own = world.applied.filter((one) => one.eid === `e${e}`).map((one) => Number(one.v));
    expect(own).toEqual(Array.from({ length: batches }, (_, i) => i));
  }
}

async function sendAll(one: Client, batches: number, perBatch: number): Promise<void> {
  for (let i = 0; i < batches; i++) {
    await one.write(Array.from({ length: perBatch }, (_, e) => point(`e${e}`, String(i))));
  }
  expect((await one.flush()).accepted).toBe(batches * perBatch);
}

for (const way of ["up", "down"] as const) {
  test(`a connection that is cut at arbitrary places ${way} loses nothing and doubles nothing`, async () => {
    const world = createFakeWorld();
    const { server } = await node(world);
    const proxy = await startCutProxy(() => server.address);
    closers.push(() => proxy.close());
    let bytes = way === "up" ? 300 : 150;
    const one = await client(proxy.address);
    const timer = setInterval(() => {
      // Later connections live longer, so that there is progress.
      bytes += way === "up" ? 173 : 61;
      proxy.cutAfter = { [way]: bytes };
    }, 5);
    closers.push(() => clearInterval(timer));
    for (let i = 0; i < 60; i++) {
      await one.write(Array.from({ length: 10 }, (_, e) => point(`e${e}`, String(i))));
      if (i % 6 === 0) proxy.cut();
    }
    clearInterval(timer);
    proxy.cutAfter = null;
    await one.flush();
    expect(proxy.connections).toBeGreaterThan(3);
    expectExactlyOnce(world, 60, 10);
  });
}

test("an engine that dies with parts in hand is resumed on another node, exactly once", async () => {
  const world = createFakeWorld();
  let { engine, server } = await node(world);
  const proxy = await startCutProxy(() => server.address);
  closers.push(() => proxy.close());
  const one = await client(proxy.address);
  const sent = sendAll(one, 120, 10);
  for (let death = 0; death < 4; death++) {
    const before = world.applied.length;
    await until(() => world.applied.length > before + 50 || world.applied.length === 1_200, "progress");
    engine.die();
    ({ engine, server } = await node(world));
    proxy.cut();
  }
  await sent;
  expectExactlyOnce(world, 120, 10);
});

test("after a break another node is tried first, and what is durable is not sent to it again", async () => {
  const world = createFakeWorld();
  const { engine, server } = await node(world);
  const next = await node(world);
  engine.processes = false;
  next.engine.processes = false;
  const proxy = await startCutProxy(() => server.address);
  closers.push(() => proxy.close());
  const acks: string[] = [];
  const one = await client("", {
    addresses: [proxy.address, next.server.address],
    level: "processed",
    onAck: ({ level, first, last, accepted }) => acks.push(`${level} ${first}-${last} ${accepted}`),
  });
  const first = one.send([point("a"), point("b")]);
  await until(() => acks.length === 1, "a durable acknowledgement");
  proxy.cut();
  const second = one.send([point("c")]);
  await until(() => acks.length === 2, "one of the other node");
  expect(proxy.connections).toBe(1);
  expect(next.engine.stats).toMatchObject({ offers: 1, repeats: 0 });
  next.engine.processAll();
  expect([(await first).accepted, (await second).accepted]).toEqual([2, 1]);
  expect(acks).toEqual(["durable 1-1 2", "durable 2-2 1", "processed 1-1 2", "processed 2-2 1"]);
  next.engine.processes = true;
});

test("busy shards and cuts together keep the order of every entity", async () => {
  const world = createFakeWorld();
  const { engine, server } = await node(world);
  let offers = 0;
  engine.refuse = () => {
    offers += 1;
    return offers % 7 === 0 ? new StarlingError("BUSY", "for now") : null;
  };
  const proxy = await startCutProxy(() => server.address);
  closers.push(() => proxy.close());
  const one = await client(proxy.address);
  const sent = sendAll(one, 60, 10);
  for (let cut = 1; cut <= 5; cut++) {
    await until(() => world.applied.length >= cut * 100, "progress");
    proxy.cut();
  }
  await sent;
  expectExactlyOnce(world, 60, 10);
});

test("a leaving node finishes what is in flight and the client goes on elsewhere", async () => {
  const world = createFakeWorld();
  const engine = createFakeEngine(world);
  const next = await node(world);
  const server = await startEdge(engine, { elsewhere: () => [next.server.address] });
  closers.push(() => server.close());
  const one = await client(server.address);
  await one.send([point("a")]);
  engine.hold();
  const inFlight = one.send([point("b")]);
  await until(() => engine.offered.length === 1, "an offer");
  server.leaving();
  engine.release();
  await inFlight;
  expect(next.engine.stats.offers).toBe(0);
  await one.send([point("c")]);
  expect(next.engine.stats.offers).toBe(1);
  expect(world.applied.map((dp) => dp.eid)).toEqual(["a", "b", "c"]);
});

test("a client with nowhere else to go stays with a leaving node", async () => {
  const world = createFakeWorld();
  const { server } = await node(world);
  const one = await client(server.address);
  server.leaving();
  await one.send([point("a")]);
  await one.send([point("b")]);
  expect(world.sessions.size).toBe(1);
  expect(world.applied.length).toBe(2);
});

test("a node that stops waits for what is in flight, and not for a client that has nothing more and nowhere to go", async () => {
  const world = createFakeWorld();
  const engine = createFakeEngine(world);
  const server = await startEdge(engine, { limits: { closeGraceMs: 600_000 } });
  closers.push(() => server.close());
  const one = await client(server.address, { giveUpAfterMs: 100 });
  await client(server.address, { giveUpAfterMs: 100 });
  engine.hold();
  const sent = one.send([point("a")]);
  await until(() => engine.offered.length === 1, "an offer");
  let status: "closing" | "closed" = "closing";
  const closed = server.close().then(() => {
    status = "closed";
  });
  await delay(100);
  expect(status).toBe("closing");
  engine.release();
  expect(await sent).toMatchObject({ accepted: 1 });
  await closed;
});

test("what is in flight fails when no node comes back in time", async () => {
  const world = createFakeWorld();
  const { engine, server } = await node(world);
  const one = await client(server.address, { giveUpAfterMs: 300 });
  engine.hold();
  const sent = one.send([point("a")]);
  sent.catch(() => {});
  await until(() => engine.offered.length === 1, "an offer");
  await server.close();
  await expect(sent).rejects.toMatchObject({ code: "UNAVAILABLE" });
  await expect(one.write([point("b")])).rejects.toMatchObject({ code: "UNAVAILABLE" });
});
