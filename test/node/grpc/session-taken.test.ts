import { afterEach, expect, test } from "vitest";
import { type SessionId, toSessionId } from "../../../proto/ids.ts";
import { StarlingError } from "../../../proto/starling-error.ts";
import { createFakeEngine } from "../../support/fake-engine.ts";
import { startEdge, until } from "../../support/grpc-edge.ts";
import { openRawStream, type RawStream } from "../../support/raw-stream.ts";

/* A session has one stream, in the whole cluster: that of its last opening. */

const closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

/** A node whose sessions are opened as the test says, and what it tells other nodes; `take`: what they tell it. */
async function start() {
  const engine = createFakeEngine();
  const told: string[] = [];
  const closed: SessionId[] = [];
  const looks: string[] = [];
  const opened: ((opening: number) => void)[] = [];
  const { openSession } = engine;
  Object.assign(engine, {
    openSession: async (...asked: Parameters<typeof openSession>) => {
      const stored = await openSession(...asked);
      return { ...stored, opening: await new Promise<number>((resolve) => opened.push(resolve)) };
    },
    findClosed: async (asked: readonly SessionId[]) => {
      looks.push(asked.join());
      if (looks.length === 1) throw new StarlingError("STORE", "the connection was reset");
      return closed;
    },
    tellSession: (session: string, opening: number) => told.push(`${session} ${opening}`),
  });
  let take: (session: SessionId, opening: number) => void = () => {};
  const onSessionTaken = (listener: typeof take) => {
    take = listener;
    return () => {};
  };
  const server = await startEdge(engine, { onSessionTaken, limits: { lookEveryMs: 10 } });
  closers.push(() => server.close());
  return {
    ...{ engine, address: server.address, opened, told, closed, looks },
    take: (opening: number) => take(toSessionId("s"), opening),
  };
}

function openStream(address: string): RawStream {
  const one = openRawStream(address, "s", true);
  closers.push(() => one.close());
  return one;
}

test("a client that has gone before its session was open takes it from nobody, here or on other nodes", async () => {
  const { address, opened, told } = await start();
  const gone = openStream(address);
  await until(() => opened.length === 1, "its greeting");
  gone.stream.cancel();
  const here = openStream(address);
  await until(() => opened.length === 2, "the greeting of the one that came after");
  opened[1]?.(2);
  await here.welcomed;
  opened[0]?.(3);
  const late = openStream(address);
  await until(() => opened.length === 3, "a greeting that was slower");
  opened[2]?.(1);
  await until(() => late.problems[0]?.code === "SESSION_TAKEN", "a problem");
  here.send(1, null, "a");
  await until(() => here.acks.length === 1, "an acknowledgement");
  expect([told, here.problems]).toEqual([["s 2"], []]);
});

test("a stream ends with SESSION_TAKEN when another connection opens its session", async () => {
  const { address, opened } = await start();
  const older = openStream(address);
  await until(() => opened.length === 1, "its greeting");
  opened[0]?.(1);
  await older.welcomed;
  const newer = openStream(address);
  await until(() => opened.length === 2, "the greeting of the newer one");
  opened[1]?.(2);
  await newer.welcomed;
  await until(() => older.problems.length === 1, "a problem");
  expect(older.problems[0]?.code).toBe("SESSION_TAKEN");
  newer.send(1, null, "a");
  await until(() => newer.acks.length === 1, "an acknowledgement");
});

test("another node takes a session with a newer opening, and is told of it with an older one", async () => {
  const { address, opened, told, take } = await start();
  const stream = openStream(address);
  await until(() => opened.length === 1, "its greeting");
  opened[0]?.(2);
  await stream.welcomed;
  take(2);
  take(1);
  expect([told, stream.problems]).toEqual([["s 2", "s 2"], []]);
  take(3);
  await until(() => stream.problems[0]?.code === "SESSION_TAKEN", "a problem");
  expect(told).toEqual(["s 2", "s 2"]);
});

test("a stream ends when another connection, wherever it is, has closed its session", async () => {
  const { address, opened, closed, looks } = await start();
  const stream = openStream(address);
  await until(() => opened.length === 1, "its greeting");
  opened[0]?.(2);
  await stream.welcomed;
  // Also after one that failed.
  await until(() => looks.length > 3, "questions");
  expect([new Set(looks), stream.problems]).toEqual([new Set(["s"]), []]);
  closed.push(toSessionId("s"));
  await until(() => stream.problems[0]?.code === "SESSION_CLOSED", "a problem");
});

test("who closes its session hears so, though the node finds it closed before", async () => {
  const { engine, address, opened, closed, looks } = await start();
  const { promise, close } = createCloser();
  Object.assign(engine, { closeSession: () => promise });
  const stream = openStream(address);
  await until(() => opened.length === 1, "its greeting");
  opened[0]?.(1);
  await stream.welcomed;
  stream.stream.closeSession();
  closed.push(toSessionId("s"));
  const before = looks.length;
  await until(() => looks.length > before + 3, "questions");
  close();
  await until(() => stream.ends.length === 1, "its end");
  expect(stream.ends).toEqual([null]);
});

function createCloser() {
  let close = () => {};
  const promise = new Promise<void>((resolve) => {
    close = resolve;
  });
  return { promise, close };
}
