import { afterEach, expect, test } from "vitest";
import { type AckRange, type Client, type ConnectOptions, connect } from "../../proto/client.ts";
import { shardOf } from "../../proto/shard-of.ts";
import { startCutProxy } from "../support/cut-proxy.ts";
import { createFakeEngine, createFakeWorld, type FakeEngine, type FakeWorld } from "../support/fake-engine.ts";
import { startEdge, until } from "../support/grpc-edge.ts";
import { createRandom, seedOfRun } from "../support/random.ts";
import { startTcpProxy } from "../support/tcp-proxy.ts";

const closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

const shards = 8;
const shardOfEid = (eid: string): number => shardOf("entity", "thing", eid, shards);
const point = (eid: string, v: unknown = "x", attr = "name") => ({ type: "thing", eid, attr, v });

interface Place {
  readonly address: string;
  readonly engine: FakeEngine;
  /** Shards of the parts that this node was offered, in order. */
  readonly offered: number[];
  asked: number;
}

/** Nodes that take everything, as those of a cluster forward; and who owns what, as all of them say. */
class Cluster {
  readonly world: FakeWorld = createFakeWorld();
  readonly places: Place[] = [];
  readonly owners: { shard: number; epoch: number; address: string }[] = [];

  /** `behind`: the address at which a node is reached, made from its own. */
  async add(behind: (address: string) => Promise<string> = async (address) => address): Promise<Place> {
    const engine = createFakeEngine(this.world, shards);
    const { offer } = engine;
    const offered: number[] = [];
    engine.offer = (parts, listener) => {
      offered.push(...parts.map(({ shard }) => Number(shard)));
      offer(parts, listener);
    };
    const owners = () => {
      place.asked += 1;
      return this.owners;
    };
    const server = await startEdge(engine, { owners, addresses: () => this.places.map(({ address }) => address) });
    closers.push(() => server.close());
    const place = { address: await behind(server.address), engine, offered, asked: 0 };
    this.places.push(place);
    return place;
  }

  give(moved: readonly number[], { address }: Place): void {
    for (const shard of moved) {
      const known = this.owners.findIndex((owner) => owner.shard === shard);
      const epoch = (this.owners[known]?.epoch ?? 0) + 1;
      this.owners.splice(known < 0 ? this.owners.length : known, known < 0 ? 0 : 1, { shard, epoch, address });
    }
  }

  /** While something is in flight: what is given from then on is split by the owners of now. */
  async learnt(): Promise<void> {
    const asked = () => this.places.reduce((sum, place) => sum + place.asked, 0);
    const before = asked();
    // When the next question is asked, the answer to the one before has been taken.
    await until(() => asked() > before + 1, "news of owners");
  }

  /** Every datapoint of `e…` once, and per entity in the order in which it was sent. */
  expectExactlyOnce(entities: number, count: number): void {
    const own = this.world.applied.filter(({ eid }) => String(eid).startsWith("e"));
    expect(own.length).toBe(entities * count);
    for (let e = 0; e < entities; e++) {
      const numbers = own.filter(({ eid }) => eid === `e${e}`).map(({ v }) => Number(v));
      expect(numbers).toEqual(Array.from({ length: count }, (_, i) => i));
    }
  }
}

interface Way {
  readonly address: string;
  close(): Promise<void>;
}

/** A node that is reached through a proxy. */
async function behindProxy<W extends Way>(
  cluster: Cluster,
  start: (target: () => string) => Promise<W>,
): Promise<[Place, W]> {
  let target = "";
  const way = await start(() => target);
  closers.push(() => way.close());
  const place = await cluster.add(async (address) => {
    target = address;
    return way.address;
  });
  return [place, way];
}

async function open(places: readonly Place[], rest: Partial<ConnectOptions> = {}): Promise<Client> {
  const addresses = places.map(({ address }) => address);
  const client = await connect({ addresses, ownerAware: true, connectMs: 5_000, giveUpAfterMs: 10_000, ...rest });
  closers.push(() => client.close());
  return client;
}

const all = Array.from({ length: shards }, (_, shard) => shard);
const low = all.filter((shard) => shard < shards / 2);
const high = all.filter((shard) => shard >= shards / 2);
const batch = (entities: number, number: number) =>
  Array.from({ length: entities }, (_, e) => point(`e${e}`, String(number)));
/** So many entities that each shard has some. */
const entities = 40;

test("each part goes to its owner, and to nobody else", async () => {
  const cluster = new Cluster();
  const [a, b] = [await cluster.add(), await cluster.add()];
  cluster.give(low, a);
  cluster.give(high, b);
  const client = await open([a, b]);
  for (let i = 0; i < 20; i++) await client.write(batch(entities, i));
  expect(await client.flush()).toEqual({ accepted: 20 * entities, rejected: 0, rejections: [] });
  expect([...new Set(a.offered)].sort()).toEqual(low);
  expect([...new Set(b.offered)].sort()).toEqual(high);
  cluster.expectExactlyOnce(entities, 20);
});

test("a send is told as one: rejections keep the indexes of what was given", async () => {
  const cluster = new Cluster();
  const [a, b] = [await cluster.add(), await cluster.add()];
  cluster.give(low, a);
  cluster.give(high, b);
  const acks: AckRange[] = [];
  const client = await open([a, b], { level: "processed", onAck: (ack) => acks.push(ack) });
  const bad = [3, 4, 17, 30];
  const points = Array.from({ length: entities }, (_, i) => point(`e${i}`, "v", bad.includes(i) ? "nothing" : "name"));
  const outcome = await client.send(points);
  expect(outcome.accepted).toBe(entities - bad.length);
  expect(outcome.rejections.map(({ index, code }) => [index, code])).toEqual(
    bad.map((index) => [index, "UNKNOWN_ATTRIBUTE"]),
  );
  expect(new Set(outcome.tokens.map(({ shard }) => shard)).size).toBe(shards);
  expect(outcome.number).toBe(1);
  await client.send(batch(entities, 1));
  expect(acks).toEqual([
    { level: "durable", first: 1, last: 1, accepted: entities - bad.length },
    { level: "processed", first: 1, last: 1, accepted: entities - bad.length },
    { level: "durable", first: 2, last: 2, accepted: entities },
    { level: "processed", first: 2, last: 2, accepted: entities },
  ]);
});

test("what is above the limits of a batch is split further, in order", async () => {
  const cluster = new Cluster();
  const [a, b] = [await cluster.add(), await cluster.add()];
  cluster.give(low, a);
  cluster.give(high, b);
  const client = await open([a, b]);
  const points = Array.from({ length: 45_000 }, (_, i) => point(`e${i % 3}`, String(Math.floor(i / 3))));
  points[44_999] = point("e2", "x", "nothing");
  const [first, second] = await Promise.all([client.send(points), client.send([point("e0", "15000")])]);
  expect(first.rejections.map(({ index }) => index)).toEqual([44_999]);
  expect(second.accepted).toBe(1);
  const own = cluster.world.applied.filter(({ eid }) => eid === "e0").map(({ v }) => Number(v));
  expect(own).toEqual(Array.from({ length: 15_001 }, (_, i) => i));
});

test("C1: datapoints of a shard that moved wait until the earlier ones are durable, the others do not", async () => {
  const cluster = new Cluster();
  const [a, b] = [await cluster.add(), await cluster.add()];
  cluster.give(low, a);
  cluster.give(high, b);
  const client = await open([b, a]);
  await client.send(batch(entities, 0));
  a.engine.hold();
  const first = client.send(batch(entities, 1));
  await until(() => a.engine.offered.length > 0, "the first batch at its old owner");
  // It keeps one: a silent node that owns nothing any more would be left.
  const moved = low.slice(1);
  cluster.give(moved, b);
  await cluster.learnt();
  b.offered.length = 0;
  const second = client.send(batch(entities, 2));
  const third = client.send(batch(entities, 3));
  const highs = batch(entities, 2).filter(({ eid }) => high.includes(shardOfEid(eid)));
  await until(() => cluster.world.applied.filter(({ v }) => v === "3").length === highs.length, "unmoved shards");
  expect(b.offered.filter((shard) => moved.includes(shard))).toEqual([]);
  a.engine.release();
  expect((await Promise.all([first, second, third])).map(({ accepted }) => accepted)).toEqual(Array(3).fill(entities));
  expect(b.offered.filter((shard) => moved.includes(shard)).length).toBeGreaterThan(0);
  cluster.expectExactlyOnce(entities, 4);
});

test("shards that move all the time leave everything once and in order", async () => {
  const seed = seedOfRun();
  console.log(`seed ${seed}`);
  const random = createRandom(seed);
  const cluster = new Cluster();
  const places = [await cluster.add(), await cluster.add(), await cluster.add()] as const;
  cluster.give(all, places[0]);
  const client = await open(places);
  const sent: Promise<unknown>[] = [];
  for (let i = 0; i < 300; i++) {
    if (i % 60 === 59) {
      // Something is in flight while the owners are learnt, and after.
      for (const place of places) place.engine.hold();
      sent.push(client.send(batch(entities, i)));
      for (const shard of all) cluster.give([shard], places[random.between(0, 2)] ?? places[0]);
      await cluster.learnt();
    } else sent.push(client.send(batch(entities, i)));
    // A few more batches later, well before the next time: what is held then stays held until the news is there.
    if (i % 60 === 5) for (const place of places) place.engine.release();
    if (i % 10 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  for (const place of places) place.engine.release();
  await Promise.all(sent);
  cluster.expectExactlyOnce(entities, 300);
  for (const place of places) expect(place.offered.length).toBeGreaterThan(0);
});

test("C2: what a dead node has not acknowledged goes on through another one, and comes back with it", async () => {
  const cluster = new Cluster();
  const [a, way] = await behindProxy(cluster, startCutProxy);
  const b = await cluster.add();
  cluster.give(low, a);
  cluster.give(high, b);
  const breaks: string[] = [];
  const client = await open([a, b], { onBreak: ({ code }) => breaks.push(code) });
  await client.send(batch(entities, 0));
  a.engine.hold();
  const held = client.send(batch(entities, 1));
  await until(() => a.engine.offered.length > 0, "the batch at its owner");
  way.cutAfter = { up: 0 };
  a.engine.die();
  way.cut();
  expect((await held).accepted).toBe(entities);
  expect(breaks.length).toBeGreaterThan(0);
  for (let i = 2; i < 20; i++) await client.send(batch(entities, i));
  way.cutAfter = null;
  a.engine.release();
  a.offered.length = 0;
  for (let i = 0; a.offered.length === 0; i++) {
    await client.send([...batch(entities, 0)].map((one) => ({ ...one, eid: `waker-${one.eid}` })));
    await new Promise((resolve) => setTimeout(resolve, 10));
    if (i > 1_000) throw new Error("never: back at its owner");
  }
  cluster.expectExactlyOnce(entities, 20);
});

test("a node that stands still is left as soon as others own its shards", async () => {
  const cluster = new Cluster();
  const [a, way] = await behindProxy(cluster, startTcpProxy);
  const b = await cluster.add();
  cluster.give(low, a);
  cluster.give(high, b);
  const breaks: string[] = [];
  const client = await open([b, a], { onBreak: ({ code }) => breaks.push(code) });
  await client.send(batch(entities, 0));
  way.swallow(["up", "down"]);
  const stuck = client.send(batch(entities, 1));
  cluster.give(low, b);
  expect((await stuck).accepted).toBe(entities);
  cluster.expectExactlyOnce(entities, 2);
});

test("owners that nobody knows cost a hop: everything goes to the node that was given", async () => {
  const cluster = new Cluster();
  const a = await cluster.add();
  const client = await open([a]);
  for (let i = 0; i < 5; i++) await client.write(batch(entities, i));
  await client.flush();
  cluster.expectExactlyOnce(entities, 5);
});

test("an error that ends a session reaches everybody who waits, behind a moved shard, too", async () => {
  const cluster = new Cluster();
  const [a, way] = await behindProxy(cluster, startCutProxy);
  cluster.give(all, a);
  const client = await open([a], { giveUpAfterMs: 300 });
  await client.send(batch(entities, 0));
  a.engine.hold();
  const first = client.send(batch(entities, 1));
  await until(() => a.engine.offered.length > 0, "the batch at its owner");
  cluster.give(all, { ...a, address: "127.0.0.1:1" });
  await cluster.learnt();
  const second = client.send(batch(entities, 2));
  const third = client.send(batch(entities, 3));
  const ends = Promise.allSettled([first, second, third]);
  await way.close();
  for (const end of await ends) expect(end).toMatchObject({ status: "rejected", reason: { code: "UNAVAILABLE" } });
  await expect(client.send(batch(entities, 4))).rejects.toMatchObject({ code: "UNAVAILABLE" });
  await expect(client.flush()).rejects.toMatchObject({ code: "UNAVAILABLE" });
});

test("nodes are asked while something is sent, and not when nothing is", async () => {
  const cluster = new Cluster();
  const a = await cluster.add();
  cluster.give(all, a);
  const client = await open([a]);
  await client.send(batch(entities, 0));
  await until(() => a.asked >= 2, "a question after the sending");
  const { asked } = a;
  await new Promise((resolve) => setTimeout(resolve, 1_500));
  expect(a.asked).toBeLessThanOrEqual(asked + 1);
});

test("what cannot be split is refused", async () => {
  const cluster = new Cluster();
  const a = await cluster.add();
  cluster.give(all, a);
  const options = { address: a.address, ownerAware: true };
  const code = "INVALID_ARGUMENT";
  await expect(connect({ ...options, session: { name: "s" } })).rejects.toMatchObject({ code });
  await expect(connect({ ...options, startNumber: 3 })).rejects.toMatchObject({ code });
  const client = await open([a]);
  await expect(client.send(batch(2, 0), { atomic: true })).rejects.toMatchObject({ code });
  await expect(client.send([])).rejects.toMatchObject({ code });
  await expect(client.send([point("e0", () => {})])).rejects.toMatchObject({ code: "INVALID_VALUE" });
  expect((await client.send(batch(2, 0))).accepted).toBe(2);
});
