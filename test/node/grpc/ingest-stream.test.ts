import { connect as connectHttp2 } from "node:http2";
import { afterEach, describe, expect, test } from "vitest";
import type { GrpcServerOptions } from "../../../node/grpc/server.ts";
import { type Client, type ConnectOptions, connect } from "../../../proto/client.ts";
import { encodeBatches, encodeBatchMessage } from "../../../proto/client-batch.ts";
import { type Clock, systemClock } from "../../../proto/clock.ts";
import { StarlingError } from "../../../proto/starling-error.ts";
import { createFakeEngine, createFakeWorld, type FakeEngine } from "../../support/fake-engine.ts";
import { startEdge, until } from "../../support/grpc-edge.ts";
import { openRawStream } from "../../support/raw-stream.ts";

const closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

async function edge(engine: FakeEngine = createFakeEngine(), rest: Partial<GrpcServerOptions> = {}) {
  const server = await startEdge(engine, rest);
  closers.push(() => server.close());
  return server;
}

function rawStream(...asked: Parameters<typeof openRawStream>) {
  const one = openRawStream(...asked);
  closers.push(() => one.close());
  return one;
}

async function client(address: string, rest: Partial<ConnectOptions> = {}): Promise<Client> {
  const one = await connect({ address, connectMs: 5_000, giveUpAfterMs: 5_000, ...rest });
  closers.push(() => one.close());
  return one;
}

const point = (eid: string, v: unknown = "x", attr = "name") => ({ type: "thing", eid, attr, v });
const eidsOf = (engine: FakeEngine) => engine.world.applied.map((one) => one.eid);

describe("a client", () => {
  test("sends in three lines and learns what was accepted and what not", async () => {
    const engine = createFakeEngine();
    const { address } = await edge(engine);
    const one = await client(address);
    const outcome = await one.send([point("a"), point("b", 1, "nope"), point("c", "seven", "size")]);
    expect(outcome).toMatchObject({ accepted: 1, number: 1 });
    expect(outcome.rejections.map(({ index, code }) => [index, code])).toEqual([
      [1, "UNKNOWN_ATTRIBUTE"],
      [2, "INVALID_VALUE"],
    ]);
    expect(outcome.tokens.length).toBeGreaterThan(0);
    await one.close();
    await one.close();
    expect(eidsOf(engine)).toEqual(["a"]);
    expect(engine.world.sessions.get("fake-1")?.closed).toBe(true);
  });

  test("splits what is above the limits into batches of one session, with indices of the whole", async () => {
    const engine = createFakeEngine();
    const { address } = await edge(engine);
    const one = await client(address);
    const points = Array.from({ length: 25_000 }, (_, i) => point(`e${i}`, "x", i === 15_000 ? "nope" : "name"));
    const outcome = await one.send(points);
    expect(outcome.accepted).toBe(24_999);
    expect(outcome.rejections).toMatchObject([{ index: 15_000, code: "UNKNOWN_ATTRIBUTE" }]);
    const heavy = await one.send(Array.from({ length: 6 }, (_, i) => point(`h${i}`, "y".repeat(1_000_000))));
    expect(heavy.accepted).toBe(6);
    await expect(one.send(points, { atomic: true })).rejects.toMatchObject({ code: "TOO_LARGE" });
  });

  test("an atomic batch with one bad datapoint changes nothing", async () => {
    const engine = createFakeEngine();
    const { address } = await edge(engine);
    const one = await client(address);
    const outcome = await one.send([point("a"), point("b", 1, "nope")], { atomic: true });
    expect(outcome.rejections.map(({ code }) => code)).toEqual(["ATOMIC_REFUSED", "UNKNOWN_ATTRIBUTE"]);
    expect(eidsOf(engine)).toEqual([]);
  });

  test("awaits the processed level when it asks for it", async () => {
    const engine = createFakeEngine();
    engine.processes = false;
    const { address } = await edge(engine);
    const levels: string[] = [];
    const one = await client(address, { level: "processed", onAck: (ack) => levels.push(ack.level) });
    const sent = one.send([point("a")]);
    await until(() => levels.length > 0, "the durable acknowledgement");
    expect(levels).toEqual(["durable"]);
    engine.processAll();
    expect((await sent).obligations).toBe(1);
    expect(levels).toEqual(["durable", "processed"]);
  });

  test("write resolves while there is credit and flush waits for all", async () => {
    const engine = createFakeEngine();
    const { address } = await edge(engine);
    const one = await client(address);
    engine.hold();
    for (let i = 0; i < 8; i++) await one.write([point(`e${i}`)]);
    let ninth = false;
    const waiting = one.write([point("e8"), point("bad", 1, "nope")]).then(() => {
      ninth = true;
    });
    await until(() => engine.offered.length === 8, "eight offers");
    expect(ninth).toBe(false);
    engine.release();
    await waiting;
    expect(await one.flush()).toMatchObject({ accepted: 9, rejected: 1, rejections: [{ number: 9, index: 1 }] });
    expect(engine.world.applied.length).toBe(9);
  });

  test("sees only slowness when shards are busy or move", async () => {
    const engine = createFakeEngine();
    let refusals = 0;
    engine.refuse = () => {
      refusals += 1;
      if (refusals % 3 !== 1) return null;
      return new StarlingError(refusals % 2 === 0 ? "BUSY" : "MOVED", "for now");
    };
    const { address } = await edge(engine);
    const one = await client(address);
    for (let i = 0; i < 40; i++) await one.write([point("same", `v${i}`), point(`e${i}`)]);
    await one.flush();
    const values = engine.world.applied.filter((dp) => dp.eid === "same").map((dp) => dp.v);
    expect(values).toEqual(Array.from({ length: 40 }, (_, i) => `v${i}`));
    expect(engine.world.applied.length).toBe(80);
  });

  test("is refused by another cluster at once", async () => {
    const { address } = await edge();
    await expect(connect({ address, clusterId: "c2" })).rejects.toMatchObject({ code: "WRONG_CLUSTER" });
  });

  test("says where it looked when no node answers", async () => {
    const failure = await connect({ address: "127.0.0.1:1", connectMs: 300 }).catch((error: unknown) => error);
    expect(failure).toMatchObject({ code: "UNAVAILABLE" });
    expect(String(failure)).toMatch(/127\.0\.0\.1:1.*ECONNREFUSED/);
  });
});

describe("a stream", () => {
  test("answers a repeat from what was stored, and a changed batch with BATCH_CHANGED", async () => {
    const engine = createFakeEngine();
    const { address } = await edge(engine);
    const first = rawStream(address, "s", true);
    await first.welcomed;
    first.send(1, null, "a");
    await until(() => first.acks.length === 1, "an acknowledgement");
    const second = rawStream(address, "s", true);
    await second.welcomed;
    second.send(1, null, "a");
    await until(() => second.acks.length === 1, "an acknowledgement of the repeat");
    expect(Number(second.acks[0]?.accepted)).toBe(1);
    expect(eidsOf(engine)).toEqual(["a"]);
    const third = rawStream(address, "s", true);
    await third.welcomed;
    // The same entity, so the same shard: other content under the same number.
    for (const batch of encodeBatches([point("a", "other")], false))
      third.stream.write(encodeBatchMessage(batch, 1, null));
    await until(() => third.problems.length === 1, "a problem");
    expect(third.problems[0]?.code).toBe("BATCH_CHANGED");
    expect(third.problems[0]?.message).toMatch(/batch 1/);
  });

  test("refuses a closed session", async () => {
    const { address } = await edge();
    const one = await client(address, { session: { name: "s" } });
    await one.close();
    const raw = rawStream(address, "s", true);
    await raw.welcomed;
    raw.stream.closeSession();
    const late = rawStream(address, "s", true);
    await until(() => late.problems.length === 1, "a problem");
    expect(late.problems[0]?.code).toBe("SESSION_CLOSED");
  });

  test("cuts a client whose message holds two batches, and serves the next one", async () => {
    const { address } = await edge();
    const raw = rawStream(address);
    await raw.welcomed;
    const [batch] = encodeBatches([point("a")], false);
    if (batch === undefined) throw new Error("no batch");
    const message = encodeBatchMessage(batch, 1, null);
    raw.stream.write(Buffer.concat([message, message]));
    await until(() => raw.problems.length === 1, "a problem");
    expect(raw.problems[0]).toMatchObject({ code: "INVALID_ARGUMENT", message: expect.stringContaining("twice") });
    const next = rawStream(address);
    await next.welcomed;
    next.send(1, null, "a");
    await until(() => next.acks.length === 1, "an acknowledgement");
  });

  test("cuts a client that exceeds its credits with BUSY", async () => {
    const engine = createFakeEngine();
    const { address } = await edge(engine);
    engine.hold();
    const raw = rawStream(address);
    expect((await raw.welcomed).creditBatches).toBe(8);
    for (let number = 1; number <= 9; number++) raw.send(number, number === 1 ? null : number - 1, "a");
    await until(() => raw.problems.length === 1, "a problem");
    expect(raw.problems[0]?.code).toBe("BUSY");
    expect(engine.offered.length).toBe(8);
  });

  test("stays alive after a batch that is too large or empty", async () => {
    const { address } = await edge();
    const raw = rawStream(address);
    await raw.welcomed;
    const content = encodeBatches([point("a", "z".repeat(2_500_000))], false)[0]?.content ?? new Uint8Array(0);
    const twice = Buffer.concat([content, content]);
    raw.stream.write(encodeBatchMessage({ content: twice, count: 2 }, 1, null));
    raw.stream.write(encodeBatchMessage({ content: new Uint8Array(0), count: 0 }, 2, 1));
    raw.send(3, 2, "a");
    await until(() => raw.acks.at(-1)?.last === 3n, "three acknowledged batches");
    const codes = raw.acks.flatMap((ack) => ack.rejections.map((one) => [Number(one.number), one.rejections[0]?.code]));
    expect(codes).toEqual([
      [1, "TOO_LARGE"],
      [2, "INVALID_ARGUMENT"],
    ]);
    expect(raw.acks.reduce((sum, ack) => sum + Number(ack.accepted), 0)).toBe(1);
  });

  test("is cut when there is no hello in time", async () => {
    const { address } = await edge(createFakeEngine(), { limits: { helloMs: 50 } });
    const closed = await silentStream(address, []);
    expect(closed.status).toBe("0");
  });

  test("its session is noted to be in use, as long as it is open", async () => {
    const engine = createFakeEngine();
    const used: string[] = [];
    const useSession = async (session: string): Promise<void> => {
      used.push(session);
      if (used.length === 1) throw new StarlingError("STORE", "the connection was reset");
    };
    const { address } = await edge({ ...engine, useSession }, { limits: { useEveryMs: 20 } });
    await rawStream(address, "mine", true).welcomed;
    // Also after one that failed.
    await until(() => used.length >= 3, "three notes");
    expect(new Set(used)).toEqual(new Set(["mine"]));
  });

  test("a session in which a batch waits all the time is not noted to be in use until that has gone", async () => {
    const engine = createFakeEngine();
    engine.refuse = () => new StarlingError("BUSY", "always");
    let used = 0;
    const useSession = async (): Promise<void> => {
      used += 1;
    };
    const clock = createCountingClock();
    const limits = { useEveryMs: 20 };
    const { address } = await edge({ ...engine, useSession }, { limits, clock });
    const raw = rawStream(address, "mine", true);
    await raw.welcomed;
    raw.send(1, null, "a");
    await until(() => engine.stats.offers > 1, "a batch that waits");
    const before = used;
    await until(() => engine.stats.offers > 8, "many tries");
    expect(used).toBe(before);
    engine.refuse = () => null;
    await until(() => used > before, "a note");
  });

  test("a client that never reads its acknowledgements is bounded, then cut", async () => {
    const engine = createFakeEngine();
    const { address } = await edge(engine, { limits: { stalledMs: 300 } });
    const hello = Buffer.from([0x0a, 0x04, 0x08, 0x01, 0x10, 0x01]);
    const bad = Array.from({ length: 2_000 }, () => point("a", 1, "nope"));
    const [batch] = encodeBatches(bad, false);
    if (batch === undefined) throw new Error("no batch");
    const batches = Array.from({ length: 8 }, (_, i) => encodeBatchMessage(batch, i + 1, i === 0 ? null : i));
    const closed = await silentStream(address, [hello, ...batches]);
    expect(closed.rstCode).toBe(8);
    expect(engine.stats.offers).toBeLessThanOrEqual(8);
  });

  test("T3: a client that sends on but reads nothing gets no credits back", async () => {
    const engine = createFakeEngine();
    const { address } = await edge(engine);
    const hello = Buffer.from([0x0a, 0x04, 0x08, 0x01, 0x10, 0x01]);
    // The acknowledgement of one such batch is larger than the connection's window.
    const [batch] = encodeBatches(
      Array.from({ length: 2_000 }, () => point("a", 1, "nope")),
      false,
    );
    if (batch === undefined) throw new Error("no batch");
    const batches = Array.from({ length: 60 }, (_, i) => encodeBatchMessage(batch, i + 1, i === 0 ? null : i));
    await silentStream(address, [hello, ...batches], { paceMs: 5, waitMs: 100 });
    expect(engine.stats.offers).toBeGreaterThanOrEqual(8);
    expect(engine.stats.offers).toBeLessThanOrEqual(17);
  });

  test("a client that vanishes frees everything", async () => {
    const engine = createFakeEngine();
    engine.refuse = () => new StarlingError("BUSY", "always");
    const clock = createCountingClock();
    const { address } = await edge(engine, { clock });
    const raw = rawStream(address, "s", true);
    await raw.welcomed;
    raw.send(1, null, "a");
    // By now the rests are long: a timer that stayed would be seen.
    await until(() => engine.stats.offers > 5, "retries");
    await until(() => engine.offered.length === 0 && clock.timers === 3, "a rest, beside two of its session");
    raw.stream.cancel();
    const cancelled = performance.now();
    await until(() => clock.timers === 0, "no timers");
    expect(performance.now() - cancelled).toBeLessThan(250);
    // No timer is left that could offer again.
    expect(clock.timers).toBe(0);
  });

  test("two engines of one world take a named session once", async () => {
    const world = createFakeWorld();
    const points = Array.from({ length: 500 }, (_, i) => point(`e${i}`));
    for (let run = 0; run < 2; run++) {
      const { address } = await edge(createFakeEngine(world));
      const one = await client(address, { session: { name: "import" } });
      for (let at = 0; at < points.length; at += 50) await one.write(points.slice(at, at + 50));
      expect((await one.flush()).accepted).toBe(500);
      await one.close();
    }
    expect(world.applied.length).toBe(500);
  });
});

/** The process's clock, which knows how many of its timers are set. */
function createCountingClock(): Clock & { readonly timers: number } {
  let timers = 0;
  return {
    ...systemClock,
    after: (ms, run) => {
      let set = true;
      timers += 1;
      const unset = () => {
        if (set) timers -= 1;
        set = false;
      };
      const cancel = systemClock.after(ms, () => {
        unset();
        run();
      });
      return () => {
        unset();
        cancel();
      };
    },
    get timers() {
      return timers;
    },
  };
}

/** Opens a stream by hand and reads nothing of the answers. */
async function silentStream(address: string, messages: readonly Buffer[], { paceMs = 0, waitMs = 8_000 } = {}) {
  const session = connectHttp2(`http://${address}`);
  closers.push(() => session.destroy());
  const stream = session.request({
    ":method": "POST",
    ":path": "/starling.v1.Ingest/Stream",
    "content-type": "application/grpc",
    te: "trailers",
  });
  let status = "";
  stream.on("trailers", (trailers) => {
    status = String(trailers["grpc-status"]);
  });
  stream.on("error", () => {});
  if (messages.length === 0) stream.resume();
  for (const message of messages) {
    const frame = Buffer.alloc(5);
    frame.writeUInt32BE(message.length, 1);
    stream.write(Buffer.concat([frame, message]));
    if (paceMs > 0) await new Promise((resolve) => setTimeout(resolve, paceMs));
  }
  const closed = new Promise<void>((resolve) => stream.on("close", () => resolve()));
  const ended = new Promise<void>((resolve) => stream.on("end", () => resolve()));
  await Promise.race([closed, ended, new Promise((resolve) => setTimeout(resolve, waitMs))]);
  await new Promise((resolve) => setTimeout(resolve, 20));
  return { rstCode: stream.rstCode, status };
}
