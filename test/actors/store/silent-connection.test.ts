import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Connection, createConnection, createPool, createSilences } from "../../../actors/store/connection.ts";
import type { StarlingError } from "../../../proto/starling-error.ts";
import { createNetwork } from "../../support/cluster/network.ts";
import { startTestPostgres, type TestPostgres } from "../../support/postgres-server.ts";

let postgres: TestPostgres;
const network = createNetwork([]);
let connection: Connection;
let port: number;

beforeAll(async () => {
  postgres = await startTestPostgres();
  const socket = join(new URL(postgres.url).searchParams.get("host") ?? "", ".s.PGSQL.5432");
  ({ port } = await network.open({ from: "node", to: "postgres", target: () => ({ path: socket }) }));
  connection = createConnection(to(port));
}, 60_000);

afterAll(async () => {
  await connection?.close();
  await network.close();
  await postgres?.close();
});

function to(port: number, host = "127.0.0.1") {
  const url = `postgres://starling@${host}:${port}/postgres`;
  return { url, application: "silent", statementTimeoutMs: 30_000, connectTimeoutMs: 2_000 };
}

/** A line to the server that takes a piece at a time, in both directions. */
async function startLine(pieceBytes: number, everyMs: number) {
  const sockets = new Set<Socket>();
  const carry = async (from: Socket, onto: Socket): Promise<void> => {
    for await (const chunk of from as AsyncIterable<Buffer>) {
      for (let at = 0; at < chunk.length; at += pieceBytes) {
        if (everyMs > 0) await delay(everyMs);
        onto.write(chunk.subarray(at, at + pieceBytes));
      }
    }
    onto.end();
  };
  const server = createServer((client) => {
    const onward = connect(port, "127.0.0.1");
    for (const [from, onto] of [[client, onward] as const, [onward, client] as const]) {
      sockets.add(from);
      carry(from, onto).catch(() => onto.destroy());
    }
  });
  const listen = (at: number) => new Promise<void>((resolve) => server.listen(at, "127.0.0.1", resolve));
  await listen(0);
  const { port: own } = server.address() as AddressInfo;
  return {
    port: own,
    refuse: () => void server.close(),
    accept: () => listen(own),
    close: () => {
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  };
}

test("a statement whose bytes were lost ends long before its deadline, and the next one is answered", async () => {
  expect(await connection.query("select 1 as one")).toEqual([{ one: 1 }]);
  for (const [from, to] of [
    ["node", "postgres"],
    ["postgres", "node"],
  ] as const) {
    network.cut(from, to, "lost");
    const began = performance.now();
    const lost = connection.query("select 2 as two");
    lost.catch(() => {}); // looked at below
    setTimeout(() => network.heal(from, to), 500);
    await expect(lost).rejects.toMatchObject({ code: "STORE" });
    expect(performance.now() - began).toBeLessThan(15_000);
    expect(await connection.query("select 3 as three")).toEqual([{ three: 3 }]);
  }
}, 60_000);

test("a statement that is prepared when bytes are lost, and never executed, ends as soon", async () => {
  const began = performance.now();
  const [row] = await connection.query<{ pid: number }>("select pg_backend_pid() as pid");
  network.cut("postgres", "node", "lost");
  // With parameters, and for the first time here: the package waits for their types, and the server for their values.
  const lost = connection.query("select $1::int as four", [4]);
  lost.catch(() => {}); // looked at below
  setTimeout(() => network.heal("postgres", "node"), 500);
  await expect(lost).rejects.toMatchObject({ code: "STORE" });
  expect(performance.now() - began).toBeLessThan(15_000);
  expect(await connection.query("select $1::int as four", [4])).toEqual([{ four: 4 }]);
  expect(await connection.query("select pg_backend_pid() as pid")).not.toEqual([row]);
}, 60_000);

test("a statement whose backend has gone ends as soon", async () => {
  expect(await connection.query("select 5 as five")).toEqual([{ five: 5 }]);
  const began = performance.now();
  network.halfOpen("postgres", "node");
  await expect(connection.query("select 6 as six")).rejects.toMatchObject({ code: "STORE" });
  expect(performance.now() - began).toBeLessThan(15_000);
  expect(await connection.query("select 6 as six")).toEqual([{ six: 6 }]);
}, 60_000);

test("who looks for a statement and is refused at once says nothing of it, and ends nothing", async () => {
  const line = await startLine(65_536, 0);
  const own = createConnection(to(line.port));
  await own.query("select 1 as one");
  network.cut("postgres", "node", "lost");
  const lost = own.query("select 2 as two").catch((error: StarlingError) => error.code);
  line.refuse();
  expect(await Promise.race([lost, delay(4_500, "waits")])).toBe("waits");
  network.heal("postgres", "node");
  await line.accept();
  expect(await lost).toBe("STORE");
  await own.close();
  line.close();
}, 60_000);

test.each(["255.255.255.255", "[ff02::1]", "127.0.0.1"])(
  "a server that cannot even be dialled at %s is STORE",
  async (host) => {
    const nowhere = createConnection(to(1, host));
    const began = performance.now();
    await expect(nowhere.query("select 1 as one")).rejects.toMatchObject({ code: "STORE" });
    expect(performance.now() - began).toBeLessThan(1_500);
    await nowhere.close();
  },
);

test("what takes long as the line is slow is waited for, on its way to the server and back", async () => {
  const line = await startLine(32_768, 25);
  const own = createConnection(to(line.port));
  const length = 6_000_000;
  const began = performance.now();
  const text = "select length($1::text) as length";
  expect(await own.query(text, ["x".repeat(length)])).toEqual([{ length }]);
  expect(performance.now() - began).toBeGreaterThan(4_000);
  const [row] = await own.query<{ text: string }>("select repeat('x', $1::int) as text", [length]);
  expect(row?.text.length).toBe(length);
  expect(performance.now() - began).toBeGreaterThan(8_000);
  await own.close();
  line.close();
}, 60_000);

test("a statement that is slow is waited for", async () => {
  const [row] = await connection.query<{ pid: number }>("select pg_backend_pid() as pid from pg_sleep(6)");
  expect(await connection.query("select pg_backend_pid() as pid")).toEqual([row]);
}, 60_000);

test("a session that ends as a statement is about to be sent is followed by another one", async () => {
  for (let round = 0; round < 5; round++) {
    expect(await connection.query("select 1 as one")).toEqual([{ one: 1 }]);
    // What is written is sent at the end of a turn of the loop, of which the end of the socket comes first.
    await new Promise((resolve) => setTimeout(resolve, 1));
    network.reset("node", "postgres");
    await expect(connection.query("select 2 as two")).rejects.toMatchObject({ code: "STORE" });
    expect(await connection.query("select 3 as three")).toEqual([{ three: 3 }]);
  }
});

test("a statement that waits until its connection may connect again ends with the connection", async () => {
  const nowhere = createConnection({
    url: "postgres://starling@127.0.0.1:1/postgres",
    application: "nowhere",
    statementTimeoutMs: 1_000,
    connectTimeoutMs: 1_000,
  });
  const ask = () => nowhere.query("select 1 as one").catch((error: Error) => error.message);
  // Each attempt rests twice as long as the one before: the next one half a second.
  for (let i = 0; i < 6; i++) expect(await ask()).toContain("ECONNREFUSED");
  let said: unknown = null;
  void ask().then((message) => {
    said = message;
  });
  await nowhere.close();
  await new Promise(setImmediate);
  expect(said).toBe("the connection is closed");
});

test("where one connection was silent, the others of its pool are not tried in turn", async () => {
  const size = 4;
  const pool = createPool({ ...to(port), size, waitingMax: 9, silences: createSilences() });
  const ask = () => pool.query("select pg_backend_pid() as pid").catch((error: StarlingError) => error.code);
  await Promise.all(Array.from({ length: size }, ask));
  network.halfOpen("postgres", "node");
  const began = performance.now();
  expect(await ask()).toBe("STORE");
  for (let i = 1; i < size; i++) expect(await ask()).toEqual([{ pid: expect.any(Number) }]);
  expect(performance.now() - began).toBeLessThan(6_000);
  await pool.close();
}, 60_000);
