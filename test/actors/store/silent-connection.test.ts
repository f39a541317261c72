import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Connection, createConnection } from "../../../actors/store/connection.ts";
import { createNetwork } from "../../support/cluster/network.ts";
import { startTestPostgres, type TestPostgres } from "../../support/postgres-server.ts";

let postgres: TestPostgres;
const network = createNetwork([]);
let connection: Connection;

beforeAll(async () => {
  postgres = await startTestPostgres();
  const socket = join(new URL(postgres.url).searchParams.get("host") ?? "", ".s.PGSQL.5432");
  const { port } = await network.open({ from: "node", to: "postgres", target: () => ({ path: socket }) });
  connection = createConnection({
    url: `postgres://starling@127.0.0.1:${port}/postgres`,
    application: "silent",
    statementTimeoutMs: 30_000,
    connectTimeoutMs: 2_000,
  });
}, 60_000);

afterAll(async () => {
  await connection?.close();
  await network.close();
  await postgres?.close();
});

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
