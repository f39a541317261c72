import { connect, createServer, type Server, type Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { Coordinator, Write } from "../../../cluster/coordinator.ts";
import { openEtcd } from "../../../cluster/etcd/etcd.ts";
import { systemClock } from "../../../proto/clock.ts";
import type { StarlingError } from "../../../proto/starling-error.ts";
import { startTestEtcd, type TestEtcd } from "../../support/etcd-server.ts";

const timeoutMs = 1_000;
const opened: Coordinator[] = [];
const problems: StarlingError[] = [];
let etcd: TestEtcd;
let tests = 0;
/** A prefix that no other test has. */
let prefix: string;

beforeAll(async () => {
  etcd = await startTestEtcd();
});
afterAll(() => etcd?.close());
beforeEach(() => {
  problems.length = 0;
  prefix = `etcd/${String(tests++).padStart(3, "0")}/`;
});
afterEach(async () => {
  await Promise.all(opened.splice(0).map((coordinator) => coordinator.close()));
});

function open(endpoints: readonly string[] = [etcd.endpoint], withinMs = timeoutMs): Coordinator {
  const onProblem = (problem: StarlingError) => problems.push(problem);
  const coordinator = openEtcd({ endpoints, clock: systemClock, timeoutMs: withinMs, onProblem });
  opened.push(coordinator);
  return coordinator;
}

function put(key: string, value = "x"): Write {
  return { kind: "put", key, value, lease: null };
}

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  await expect.poll(condition, { timeout: 15_000, interval: 20 }).toBe(true);
}

/** Lists again and again for so long; returns how each call ended, and how long it took. */
async function listFor(coordinator: Coordinator, ms: number): Promise<{ code: string; tookMs: number }[]> {
  const results: { code: string; tookMs: number }[] = [];
  const end = performance.now() + ms;
  while (performance.now() < end) {
    const start = performance.now();
    const code = await coordinator.list(prefix).then(
      () => "OK",
      (error: StarlingError) => error.code,
    );
    results.push({ code, tookMs: performance.now() - start });
    await delay(20);
  }
  return results;
}

async function firstGoodCallMs(coordinator: Coordinator): Promise<number> {
  const start = performance.now();
  await until(() =>
    coordinator.list(prefix).then(
      () => true,
      () => false,
    ),
  );
  return performance.now() - start;
}

/** A watch of the test's prefix that counts its hints. */
function countHints(coordinator: Coordinator): { hints: number } {
  const count = { hints: 0 };
  coordinator.watch(prefix, () => {
    count.hints += 1;
  });
  return count;
}

describe("an etcd that is restarted with its data", () => {
  it("has its keys, answers within 1.5 s, and the watch goes on", async () => {
    const coordinator = open();
    const identity = await coordinator.identity();
    const { revision } = await coordinator.commit([], [put(`${prefix}a`, "kept")]);
    const watch = countHints(coordinator);
    await until(() => watch.hints === 1);

    await etcd.stop();
    // Long enough for the pauses between tries to be at their longest.
    const during = await listFor(coordinator, 4_000);
    expect(during.every(({ code, tookMs }) => code === "UNAVAILABLE" && tookMs < timeoutMs + 300)).toBe(true);
    await etcd.start();
    expect(await firstGoodCallMs(coordinator)).toBeLessThan(1_500);

    expect(await coordinator.identity()).toBe(identity);
    const { entries } = await coordinator.list(prefix);
    expect(entries).toMatchObject([{ key: `${prefix}a`, value: "kept", revision }]);
    await until(() => watch.hints === 2);
    await coordinator.commit([], [put(`${prefix}b`)]);
    await until(() => watch.hints === 3);
    expect(problems.length).toBeGreaterThan(0);
    expect(problems.every(({ code }) => code === "UNAVAILABLE")).toBe(true);
  });

  it("answers as soon when it was killed and came back at once", async () => {
    const coordinator = open();
    const watch = countHints(coordinator);
    await until(() => watch.hints === 1);
    await etcd.kill();
    await etcd.start();
    expect(await firstGoodCallMs(coordinator)).toBeLessThan(1_500);
    await until(() => watch.hints === 2);
  });

  it("may be away when the coordinator is opened; calls wait for it within their deadline", async () => {
    await etcd.stop();
    const coordinator = open();
    const watch = countHints(coordinator);
    const first = expect(coordinator.grant(2_000)).rejects.toMatchObject({ code: "UNAVAILABLE" });
    await delay(timeoutMs / 2);
    const start = performance.now();
    const second = coordinator.list(prefix).catch((error: StarlingError) => error.code);
    await first;
    // The end of the first one is not the end of the second.
    expect(await second).toBe("UNAVAILABLE");
    expect(performance.now() - start).toBeGreaterThan(timeoutMs - 50);
    await etcd.start();
    expect(await firstGoodCallMs(coordinator)).toBeLessThan(1_500);
    await until(() => watch.hints === 1);
  });
});

describe("an etcd that is frozen", () => {
  it("lets calls end within their deadline; calls and watch go on when it wakes up", async () => {
    const coordinator = open();
    const watch = countHints(coordinator);
    await until(() => watch.hints === 1);
    await etcd.freeze();
    const during = await listFor(coordinator, 3 * timeoutMs);
    etcd.thaw();
    expect(during.every(({ code, tookMs }) => code === "UNAVAILABLE" && tookMs < timeoutMs + 300)).toBe(true);
    expect(await firstGoodCallMs(coordinator)).toBeLessThan(1_500);
    // It was silent on the watch for two time-outs: that watch was given up.
    expect(problems.some(({ message }) => message.includes("said nothing on a watch"))).toBe(true);
    await until(() => watch.hints >= 2);
    const { hints } = watch;
    await coordinator.commit([], [put(`${prefix}a`)]);
    await until(() => watch.hints > hints);
  });

  it("does not stop the coordinator from closing", async () => {
    const coordinator = open();
    countHints(coordinator);
    await coordinator.list(prefix);
    await etcd.freeze();
    try {
      const call = expect(coordinator.list(prefix)).rejects.toMatchObject({ code: "UNAVAILABLE" });
      const start = performance.now();
      await coordinator.close();
      await call;
      expect(performance.now() - start).toBeLessThan(timeoutMs / 2);
    } finally {
      etcd.thaw();
    }
    expect(problems).toEqual([]);
  });
});

describe("an etcd that is restarted empty", () => {
  it("is known by its revision that went back, and by leases that are gone, not by its identity", async () => {
    const coordinator = open();
    const identity = await coordinator.identity();
    const lease = await coordinator.grant(60_000);
    for (let i = 0; i < 10; i++) await coordinator.commit([], [put(`${prefix}a`, String(i))]);
    const { revision } = await coordinator.list(prefix);
    const watch = countHints(coordinator);
    await until(() => watch.hints === 1);

    await etcd.restartEmpty();
    await firstGoodCallMs(coordinator);
    const listing = await coordinator.list(prefix);
    expect(listing.entries).toEqual([]);
    expect(listing.revision).toBeLessThan(revision);
    await expect(coordinator.keepAlive(lease)).rejects.toMatchObject({ code: "NOT_FOUND" });
    await until(() => watch.hints === 2);
    // etcd derives its cluster id from its flags: the same flags make the same id.
    expect(await coordinator.identity()).toBe(identity);
  });
});

describe("keep-alives", () => {
  const codeOf = (call: Promise<void>): Promise<string> =>
    call.then(
      () => "OK",
      ({ code }) => code,
    );

  it("of several leases are answered each for its own, and late answers are taken for none", async () => {
    const coordinator = open();
    const [a, b] = [await coordinator.grant(60_000), await coordinator.grant(60_000)];
    const askAll = () => Promise.all([a, "1", b, "2"].map((lease) => codeOf(coordinator.keepAlive(lease))));
    expect(await askAll()).toEqual(["OK", "NOT_FOUND", "OK", "NOT_FOUND"]);
    await etcd.freeze();
    try {
      expect(await askAll()).toEqual(Array(4).fill("UNAVAILABLE"));
    } finally {
      etcd.thaw();
    }
    await firstGoodCallMs(coordinator);
    expect(await codeOf(coordinator.keepAlive("1"))).toBe("NOT_FOUND");
    expect(await askAll()).toEqual(["OK", "NOT_FOUND", "OK", "NOT_FOUND"]);
  });

  it("go on after etcd was away between two of them", async () => {
    const coordinator = open();
    const lease = await coordinator.grant(60_000);
    await coordinator.keepAlive(lease);
    await etcd.stop();
    await etcd.start();
    await firstGoodCallMs(coordinator);
    expect(await codeOf(coordinator.keepAlive(lease))).toBe("OK");
  });
});

describe("a watch on which nothing happens", () => {
  it("stays, because etcd answers when it is asked for a sign of life", async () => {
    const coordinator = open([etcd.endpoint], 200);
    const watch = countHints(coordinator);
    await listFor(coordinator, 2_000);
    expect(watch.hints).toBe(1);
    expect(problems).toEqual([]);
  });
});

describe("several endpoints", () => {
  it("of which one is dead cost one failed call at most", async () => {
    const coordinator = open(["127.0.0.1:1", etcd.endpoint]);
    const watch = countHints(coordinator);
    const results = await listFor(coordinator, 1_000);
    expect(results.slice(1).every(({ code }) => code === "OK")).toBe(true);
    expect(results[0]?.tookMs).toBeLessThan(500);
    await until(() => watch.hints === 1);
    await coordinator.commit([], [put(`${prefix}a`)]);
    await until(() => watch.hints === 2);
  });

  it("of which one is frozen cost one deadline at most", async () => {
    const frozen = await startTestEtcd();
    try {
      const coordinator = open([frozen.endpoint, etcd.endpoint]);
      await coordinator.list(prefix);
      await frozen.freeze();
      const results = await listFor(coordinator, timeoutMs + 1_000);
      expect(results[0]?.code).toBe("UNAVAILABLE");
      expect(results[0]?.tookMs).toBeLessThan(timeoutMs + 300);
      expect(results.length).toBeGreaterThan(1);
      expect(results.slice(1).every(({ code }) => code === "OK")).toBe(true);
    } finally {
      await frozen.close();
    }
  });

  it("are not left while the one in use answers", async () => {
    const coordinator = open([etcd.endpoint, "127.0.0.1:1"]);
    const lease = await coordinator.grant(60_000);
    for (let i = 0; i < 3; i++) {
      await coordinator.keepAlive(lease);
      await expect(coordinator.keepAlive("1")).rejects.toMatchObject({ code: "NOT_FOUND" });
      await expect(coordinator.commit([], [put(prefix), put(prefix)])).rejects.toMatchObject({ code: "INTERNAL" });
      const stop = coordinator.watch(prefix, () => {});
      await coordinator.list(prefix);
      stop();
    }
    expect(await listFor(coordinator, 200)).not.toContainEqual(expect.objectContaining({ code: "UNAVAILABLE" }));
  });

  it("are tried in turn until one answers again", async () => {
    const coordinator = open(["127.0.0.1:1", etcd.endpoint, "127.0.0.1:2"]);
    await firstGoodCallMs(coordinator);
    await etcd.stop();
    const during = await listFor(coordinator, 2_000);
    expect(during.every(({ code, tookMs }) => code === "UNAVAILABLE" && tookMs < timeoutMs + 300)).toBe(true);
    await etcd.start();
    expect(await firstGoodCallMs(coordinator)).toBeLessThan(1_500);
  });

  it("that are none are refused", () => {
    for (const endpoint of ["", "https://a:2379", "a:b", "http://a:1/path", "a b"]) {
      expect(() => open([endpoint])).toThrowError(expect.objectContaining({ code: "CONFIG" }));
    }
    expect(() => open([])).toThrowError(expect.objectContaining({ code: "CONFIG" }));
    for (const endpoint of ["a", "a:1", "http://a:1", "http://a:1/", "[::1]:2379", "http://[::1]"]) open([endpoint]);
  });
});

describe("a connection that swallows what is sent", () => {
  let wall: Server;
  let swallows = false;
  let accepted = 0;
  let endpoint: string;
  const sockets = new Set<Socket>();

  beforeAll(async () => {
    wall = createServer((client) => {
      accepted += 1;
      const [host = "", port = ""] = etcd.endpoint.split(":");
      const server = connect(Number(port), host);
      for (const [from, to] of [
        [client, server],
        [server, client],
      ] as const) {
        sockets.add(from);
        from.on("data", (bytes) => {
          if (!swallows) to.write(bytes);
        });
        from.on("error", () => to.destroy());
        from.on("close", () => {
          sockets.delete(from);
          to.destroy();
        });
      }
    });
    await new Promise<void>((resolve) => wall.listen(0, "127.0.0.1", resolve));
    const address = wall.address();
    endpoint = `127.0.0.1:${typeof address === "object" && address !== null ? address.port : 0}`;
  });
  afterAll(() => {
    for (const socket of sockets) socket.destroy();
    wall.close();
  });

  it("is replaced after the first call that gets no answer", async () => {
    const coordinator = open([endpoint]);
    const watch = countHints(coordinator);
    await until(() => watch.hints === 1);
    const old = new Set(sockets);
    swallows = true;
    const first = expect(coordinator.list(prefix)).rejects.toMatchObject({ code: "UNAVAILABLE" });
    await delay(timeoutMs / 2);
    const second = expect(coordinator.list(prefix)).rejects.toMatchObject({ code: "UNAVAILABLE" });
    await first;
    for (const socket of old) socket.removeAllListeners("data");
    swallows = false;
    // The old connection swallows for ever; only a new one can bring these answers.
    const start = performance.now();
    await coordinator.list(prefix);
    expect(performance.now() - start).toBeLessThan(timeoutMs / 2);
    const connections = accepted;
    await second;
    await coordinator.list(prefix);
    expect(accepted).toBe(connections);
    await until(() => watch.hints === 2);
    await coordinator.close();
    await until(() => sockets.size === 0);
  });

  it("is replaced after some seconds if it never worked", async () => {
    const coordinator = open([endpoint], 200);
    await coordinator.list(prefix);
    swallows = true;
    await listFor(coordinator, 1_000);
    // What the connection of now has lost does not come back.
    for (const socket of sockets) socket.removeAllListeners("data");
    swallows = false;
    expect(await firstGoodCallMs(coordinator)).toBeLessThan(5_000);
  });

  it("is not replaced again and again while the silence lasts", async () => {
    const coordinator = open([endpoint], 200);
    countHints(coordinator);
    await coordinator.list(prefix);
    const before = accepted;
    swallows = true;
    try {
      const during = await listFor(coordinator, 3_000);
      expect(during.length).toBeGreaterThan(5);
      expect(during.every(({ code }) => code === "UNAVAILABLE")).toBe(true);
      expect(accepted - before).toBe(1);
    } finally {
      swallows = false;
    }
  });
});
