import { afterAll } from "vitest";
import { openDatabases, type TestDatabases } from "./databases.ts";
import { startTestPostgres, type TestDatabase, type TestPostgres } from "./postgres-server.ts";

// One server per test file: it starts with the first database that is asked for, and ends with the file.
let server: Promise<TestPostgres> | null = null;

afterAll(async () => {
  await (await server)?.close();
  server = null;
});

/** A fresh database in this test file's PostgreSQL. Closing it drops it. */
export async function testDatabase(): Promise<TestDatabase> {
  return (await testPostgres()).createDatabase();
}

/** Fresh databases there for the shards of a real node: as many as STARLING_TEST_DATABASES says. */
export async function testDatabases(): Promise<TestDatabases> {
  return await openDatabases(testDatabase);
}

/** This test file's PostgreSQL. */
export function testPostgres(): Promise<TestPostgres> {
  server ??= startTestPostgres();
  return server;
}
