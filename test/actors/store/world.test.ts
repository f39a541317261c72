import { expect, test } from "vitest";
import { createConnection } from "../../../actors/store/connection.ts";
import { type World, watchWorld } from "../../../actors/store/world.ts";
import { StarlingError } from "../../../proto/starling-error.ts";
import { testDatabase } from "../../support/postgres.ts";

function sessionIn(world: World | StarlingError) {
  return {
    query: async <Row extends object>(): Promise<Row[]> => {
      if (world instanceof StarlingError) throw world;
      return [world] as unknown as Row[];
    },
  };
}

const home: World = { systemIdentifier: "7", timeline: 1 };

test.each([
  ["another timeline", { ...home, timeline: 2 }],
  ["another system identifier", { ...home, systemIdentifier: "8" }],
])("the first session's world is the store's; %s is refused, and told once", async (_, other) => {
  const told: string[] = [];
  const watch = watchWorld(({ code }) => told.push(code));
  await watch.check(sessionIn(home));
  await watch.check(sessionIn(home));
  expect(told).toEqual([]);
  for (let i = 0; i < 2; i++) await expect(watch.check(sessionIn(other))).rejects.toMatchObject({ code: "FENCED" });
  expect(told).toEqual(["FENCED"]);
});

test("a server that does not answer is no other world", async () => {
  const told: string[] = [];
  const watch = watchWorld(({ code }) => told.push(code));
  const silent = sessionIn(new StarlingError("STORE", "in recovery"));
  await expect(watch.check(silent)).rejects.toMatchObject({ code: "STORE" });
  await watch.check(sessionIn(home));
  await expect(watch.check(silent)).rejects.toMatchObject({ code: "STORE" });
  expect(told).toEqual([]);
});

test("PostgreSQL tells its world to a role without any privilege, and each session is asked before its first statement", async () => {
  const database = await testDatabase();
  const settings = { url: database.url, application: "test", statementTimeoutMs: 10_000, connectTimeoutMs: 5_000 };
  const plain = createConnection(settings);
  await plain.script("create role nobody_special; set role nobody_special");
  await watchWorld(() => undefined).check(plain);
  await plain.close();
  let asked = 0;
  const connection = createConnection({
    ...settings,
    onSession: async (session) => {
      asked++;
      expect(await session.query("select 1 as one")).toEqual([{ one: 1 }]);
    },
  });
  await connection.query("select 1");
  await connection.script("select 1");
  expect(asked).toBe(1);
  await connection.query("select pg_terminate_backend(pg_backend_pid())").catch(() => undefined);
  await expect.poll(async () => (await connection.query("select 2 as two").catch(() => [])).length).toBe(1);
  // The package may report the end of a session more than once: asking again does no harm, not asking would.
  expect(asked).toBeGreaterThanOrEqual(2);
  await connection.close();
  await database.close();
});
