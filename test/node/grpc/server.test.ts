import { execFile } from "node:child_process";
import { connect as connectHttp2 } from "node:http2";
import { promisify } from "node:util";
import { afterEach, describe, expect, test } from "vitest";
import type { GrpcServerOptions } from "../../../node/grpc/server.ts";
import { type Client, connect } from "../../../proto/client.ts";
import { toWireValue } from "../../../proto/client-batch.ts";
import { callStream, callUnary, type Dialled, dial } from "../../../proto/client-call.ts";
import { openCalls } from "../../../proto/client-calls.ts";
import { Health, HealthCheckResponse_ServingStatus as Serving } from "../../../proto/gen/grpc/health_pb.ts";
import { AckLevel, Entities, Ingest } from "../../../proto/gen/starling_pb.ts";
import { shardId, toSeq } from "../../../proto/ids.ts";
import { StarlingError } from "../../../proto/starling-error.ts";
import { createFakeEngine, type FakeEngine } from "../../support/fake-engine.ts";
import { startEdge, until } from "../../support/grpc-edge.ts";

const closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

async function edge(engine: FakeEngine = createFakeEngine(), rest: Partial<GrpcServerOptions> = {}) {
  const server = await startEdge(engine, rest);
  closers.push(() => server.close());
  const dialled = dial(server.address);
  closers.push(() => dialled.grpc.close());
  return { engine, server, dialled };
}

async function client(address: string): Promise<Client> {
  const one = await connect({ address, connectMs: 5_000 });
  closers.push(() => one.close());
  return one;
}

const wire = (eid: string, v: unknown = "x", attr = "name") => ({ type: "thing", eid, attr, v: toWireValue(v) });
const send = (dialled: Dialled, rest: object) => callUnary(dialled, Ingest.method.send, rest, 5_000);

describe("the server", () => {
  test("listens on loopback for a port alone, and names the port and the remedy when it is taken", async () => {
    const { server } = await edge();
    const port = server.address.split(":")[1] ?? "";
    const failure = await startEdge(createFakeEngine(), { listen: port }).catch((error: unknown) => error);
    expect(failure).toMatchObject({ code: "ADDRESS_IN_USE" });
    expect(String(failure)).toMatch(new RegExp(`port ${port} on 127\\.0\\.0\\.1 is taken: stop the other program`));
    await expect(startEdge(createFakeEngine(), { listen: "nonsense" })).rejects.toMatchObject({ code: "CONFIG" });
  });

  test("opens its receive window to 4 MiB, for streams and connections", async () => {
    const { server } = await edge();
    const session = connectHttp2(`http://${server.address}`);
    closers.push(() => session.destroy());
    await new Promise((resolve) => session.once("remoteSettings", resolve));
    expect(session.remoteSettings.initialWindowSize).toBe(4 * 1024 * 1024);
    await until(() => (session.state.remoteWindowSize ?? 0) > 3 * 1024 * 1024, "a wide connection window");
  });

  test("answers a tool that has no files, by reflection", async () => {
    const { server } = await edge();
    const run = promisify(execFile);
    const curl = (...args: string[]) =>
      run("node_modules/.bin/buf", ["curl", "--protocol", "grpc", "--http2-prior-knowledge", ...args]);
    const { stdout: methods } = await curl("--list-methods", `http://${server.address}`);
    for (const name of ["starling.v1.Ingest/Stream", "starling.v1.Entities/Get", "grpc.health.v1.Health/Check"]) {
      expect(methods).toContain(name);
    }
    expect(methods).toContain("grpc.reflection.v1.ServerReflection");
    expect(methods).toContain("grpc.reflection.v1alpha.ServerReflection");
    for (const version of ["grpc-v1", "grpc-v1alpha"]) {
      const url = `http://${server.address}/starling.v1.Admin/Status`;
      const { stdout } = await curl("--reflect-protocol", version, "-d", "{}", url);
      expect(JSON.parse(stdout)).toMatchObject({ node: "n1", state: "serving" });
    }
  });

  test("health follows the engine, and says NOT_SERVING when the node leaves", async () => {
    const { engine, server, dialled } = await edge();
    const check = async (service = "") => (await callUnary(dialled, Health.method.check, { service }, 5_000)).status;
    const seen: Serving[] = [];
    const stop = new AbortController();
    const watching = (async () => {
      for await (const { status } of callStream(dialled, Health.method.watch, {}, stop.signal)) seen.push(status);
    })();
    expect(await check()).toBe(Serving.SERVING);
    expect(await check("starling.v1.Ingest")).toBe(Serving.SERVING);
    await expect(check("nope")).rejects.toMatchObject({ code: "NOT_FOUND" });
    await until(() => seen.length === 1, "the first status");
    engine.setProblem(new StarlingError("STORE", "down"));
    expect(await check()).toBe(Serving.NOT_SERVING);
    await until(() => seen.length === 2, "the second status");
    engine.setProblem(null);
    await until(() => seen.length === 3, "the third status");
    server.leaving();
    expect(await check()).toBe(Serving.NOT_SERVING);
    stop.abort();
    await watching;
    expect(seen.slice(0, 3)).toEqual([Serving.SERVING, Serving.NOT_SERVING, Serving.SERVING]);
  });

  test("close is idempotent and ends open streams", async () => {
    const { server } = await edge();
    const one = await client(server.address);
    await Promise.all([server.close(), server.close()]);
    await expect(connect({ address: server.address, connectMs: 200 })).rejects.toMatchObject({ code: "UNAVAILABLE" });
    void one;
  }, 20_000);
});

describe("Send", () => {
  test("takes a batch and answers item by item; all such calls share one session", async () => {
    const { engine, dialled } = await edge();
    const reply = await send(dialled, { datapoints: [wire("a"), wire("b", 1, "nope")] });
    expect(reply).toMatchObject({ accepted: 1n, rejections: [{ index: 1, code: "UNKNOWN_ATTRIBUTE" }] });
    expect(reply.tokens.length).toBeGreaterThan(0);
    await Promise.all(Array.from({ length: 50 }, (_, i) => send(dialled, { datapoints: [wire(`e${i}`)] })));
    expect(engine.world.applied.length).toBe(51);
    expect(engine.world.sessions.size).toBe(1);
  });

  test("with an idempotency key a repeat is answered from what was stored", async () => {
    const { engine, dialled } = await edge();
    const request = { datapoints: [wire("a"), wire("b", 1, "nope")], idempotencyKey: "k1" };
    const first = await send(dialled, request);
    const second = await send(dialled, request);
    expect({ ...second }).toEqual({ ...first });
    expect(engine.world.applied.length).toBe(1);
    const changed = send(dialled, { ...request, datapoints: [wire("a", "other"), wire("b", 1, "nope")] });
    await expect(changed).rejects.toMatchObject({ code: "BATCH_CHANGED" });
  });

  test("waits for its level, and no longer than the call's deadline", async () => {
    const { engine, dialled } = await edge();
    engine.processes = false;
    await send(dialled, { datapoints: [wire("a")] });
    const late = callUnary(dialled, Ingest.method.send, { datapoints: [wire("a")], level: AckLevel.PROCESSED }, 200);
    await expect(late).rejects.toMatchObject({ code: "DEADLINE" });
    const sent = send(dialled, { datapoints: [wire("a")], level: AckLevel.PROCESSED });
    await until(() => engine.world.applied.length === 3, "the datapoint");
    engine.processAll();
    expect((await sent).obligations).toBe(1);
  });

  test("refuses an empty batch by a rejection and atomic ones whole", async () => {
    const { engine, dialled } = await edge();
    expect(await send(dialled, {})).toMatchObject({ accepted: 0n, rejections: [{ code: "INVALID_ARGUMENT" }] });
    const reply = await send(dialled, { atomic: true, datapoints: [wire("a"), wire("b", 1, "nope")] });
    expect(reply.rejections.map(({ code }) => code)).toEqual(["ATOMIC_REFUSED", "UNKNOWN_ATTRIBUTE"]);
    expect(engine.world.applied.length).toBe(0);
  });

  test("retries what is refused for now and says BUSY when too many calls wait", async () => {
    const { engine, dialled } = await edge(createFakeEngine(), { limits: { maxCalls: 2 } });
    engine.hold();
    const two = [1, 2].map((i) => send(dialled, { datapoints: [wire(`e${i}`)] }));
    await until(() => engine.offered.length === 2, "two offers");
    await expect(send(dialled, { datapoints: [wire("c")] })).rejects.toMatchObject({ code: "BUSY" });
    let left = 3;
    engine.refuse = () => (left-- > 0 ? new StarlingError("MOVED", "for now") : null);
    engine.release();
    await Promise.all(two);
    expect(engine.world.applied.length).toBe(2);
  });
});

describe("Entities", () => {
  test("get gives the record, and clear codes for what is not there", async () => {
    const { server } = await edge();
    const one = await client(server.address);
    await one.send([
      { type: "thing", eid: "a", attr: "name", v: "x" },
      { type: "thing", eid: "a", attr: "size", v: 7 },
    ]);
    const record = await one.entities.get({ type: "thing", eid: "a" });
    expect(record).toMatchObject({
      type: "thing",
      eid: "a",
      attributes: { name: { v: "x", c: 1 }, size: { v: 7, n: 2 } },
    });
    await expect(one.entities.get({ type: "thing", eid: "zzz" })).rejects.toMatchObject({ code: "NOT_FOUND" });
    await expect(one.entities.get({ type: "nope", eid: "a" })).rejects.toMatchObject({ code: "UNKNOWN_TYPE" });
    await expect(one.entities.list({ type: "nope" })).rejects.toMatchObject({ code: "UNKNOWN_TYPE" });
    expect(await one.entities.count()).toEqual({ counts: { thing: 1 }, asOf: 1_700_000_000_000 });
  });

  test("set and delete are datapoints and tasks like others", async () => {
    const { engine, server } = await edge();
    const one = await client(server.address);
    const { tokens } = await one.entities.set({ type: "thing", eid: "a", attr: "size", v: 5, src: "me" });
    expect(tokens.length).toBe(1);
    expect(engine.world.applied).toMatchObject([{ eid: "a", v: 5, src: "me" }]);
    const bad = one.entities.set({ type: "thing", eid: "a", attr: "size", v: "five" });
    await expect(bad).rejects.toMatchObject({ code: "INVALID_VALUE" });
    expect((await one.entities.delete({ type: "thing", eid: "a" })).token).not.toBeNull();
    expect(engine.world.deleted).toEqual(["thing/a"]);
  });

  test("raw lists newest first, and follows until it is cancelled", async () => {
    const { server } = await edge();
    const one = await client(server.address);
    await one.send([{ type: "thing", eid: "a", attr: "name", v: "1" }]);
    await one.send([{ type: "thing", eid: "a", attr: "name", v: "2" }]);
    const listed: unknown[] = [];
    const askedAt = Date.now();
    for await (const raw of one.entities.raw({ type: "thing", eid: "a" })) {
      listed.push(raw.v);
      expect(raw.asOf).toBeGreaterThanOrEqual(askedAt);
      expect(raw.asOf).toBeLessThanOrEqual(Date.now());
    }
    expect(listed).toEqual(["2", "1"]);
    const tooMany = one.entities.raw({ type: "thing", eid: "a", limit: 1_001 })[Symbol.asyncIterator]().next();
    await expect(tooMany).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
      message: "the newest 1000 at most, not 1001",
    });
    const stop = new AbortController();
    const followed: unknown[] = [];
    for await (const raw of one.entities.raw({ type: "thing", follow: true, signal: stop.signal })) {
      followed.push(raw.v);
      expect(raw.asOf).toBeNull();
      if (followed.length === 2) void one.write([{ type: "thing", eid: "b", attr: "name", v: "3" }]);
      if (followed.length === 3) stop.abort();
    }
    expect(followed).toEqual(["1", "2", "3"]);
  });

  test("an error carries its code in the metadata and in the text", async () => {
    const { dialled } = await edge();
    const failure = await callUnary(dialled, Entities.method.get, { type: "nope", eid: "a" }, 5_000).catch((e) => e);
    expect(failure).toBeInstanceOf(StarlingError);
    expect(failure.cause).toMatchObject({ code: 3 });
    expect(failure.cause.details).toMatch(/^UNKNOWN_TYPE: /);
    expect(failure.cause.metadata.get("starling-code")).toEqual(["UNKNOWN_TYPE"]);
  });
});

test("calls without a session find a node that answers, and leave no session behind", async () => {
  const { engine, server } = await edge();
  const calls = await openCalls({ addresses: ["127.0.0.1:1", server.address] });
  expect((await calls.admin.status()).node).toBe("n1");
  await calls.close();
  expect(engine.world.sessions.size).toBe(0);
  await expect(openCalls({ address: "127.0.0.1:1" })).rejects.toThrow(/127\.0\.0\.1:1.*ECONNREFUSED/);
});

describe("Admin", () => {
  const letter = {
    shard: shardId("entity", 1),
    seq: toSeq(5),
    kind: "hook",
    hook: "m/on_new_attr/thing/f",
    type: "thing",
    eid: "a",
    code: "HOOK_FAILED",
    error: "boom",
    at: 9,
    task: '{"x":1}',
    status: "open",
  } as const;

  test("status, dead letters and modules travel as plain objects", async () => {
    const ofNoSnapshot = { dependsOn: [], mayChange: [], pure: false, order: 0 };
    const modules = [
      {
        name: "m",
        file: "m.ts",
        hooks: [{ kind: "on_new_attr", target: "thing/a", name: "f", counters: { runs: 2 }, ...ofNoSnapshot }],
      },
    ];
    const { engine, server } = await edge(createFakeEngine(), { modules: () => modules });
    const one = await client(server.address);
    engine.counters.add("appended", 3);
    engine.setProblem(null);
    expect(await one.admin.status()).toMatchObject({
      node: "n1",
      state: "serving",
      counters: { appended: 3 },
      problem: "",
    });
    expect(await one.admin.modules()).toEqual(modules);
    for (const id of ["1-5-0", "1-5-1", "1-5-2"]) engine.world.letters.set(id, { ...letter, id });
    const page = await one.admin.deadLetters({ limit: 2 });
    expect(page.letters.map(({ id }) => id)).toEqual(["1-5-0", "1-5-1"]);
    expect(page.cursor).toBe("1-5-1");
    expect((await one.admin.deadLetters({ cursor: page.cursor, limit: 2 })).cursor).toBe("");
    expect(await one.admin.deadLetter("1-5-0")).toMatchObject({ task: { x: 1 }, seq: 5, code: "HOOK_FAILED" });
    expect((await one.admin.replay("1-5-0")).status).toBe("replayed");
    expect((await one.admin.discard("1-5-1")).status).toBe("discarded");
    expect((await one.admin.deadLetters({ status: "open" })).letters.map(({ id }) => id)).toEqual(["1-5-2"]);
    await expect(one.admin.deadLetter("9-9-9")).rejects.toMatchObject({ code: "NOT_FOUND" });
    await expect(one.admin.deadLetters({ status: "odd" })).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
  });
});
