import {
  type Connection,
  type ConnectionOptions,
  createConnection,
  type Parameter,
} from "../../actors/store/connection.ts";
import type { TestDatabase } from "./postgres-server.ts";

/** The databases over which the shards of a test's real nodes lie. */
export interface TestDatabases {
  /** In the order in which nodes have them. */
  readonly urls: readonly string[];
  readonly settings: DatabaseSettings;
  /** Drops them. */
  close(): Promise<void>;
}

/** The settings of a node that name its databases; the second is a list, and left out where there is no further one. */
export interface DatabaseSettings {
  readonly databaseUrl: string;
  readonly databaseUrls?: string;
}

/** A connection to each of several databases: a query has the rows of all, one after another; a script runs in all. */
export interface Connections extends Connection {
  readonly each: readonly Connection[];
}

/** Creates as many databases as the variable STARLING_TEST_DATABASES says; default one. */
export async function openDatabases(create: () => Promise<TestDatabase>): Promise<TestDatabases> {
  const count = Number(process.env.STARLING_TEST_DATABASES ?? 1);
  if (!Number.isInteger(count) || count < 1) throw new Error("STARLING_TEST_DATABASES is not a number from 1");
  const databases = await Promise.all(Array.from({ length: count }, create));
  const urls = databases.map(({ url }) => url);
  return {
    urls,
    settings: settingsOf(urls),
    close: async () => void (await Promise.all(databases.map((database) => database.close()))),
  };
}

export function settingsOf([first, ...more]: readonly string[]): DatabaseSettings {
  if (first === undefined) throw new Error("a node needs a database");
  return { databaseUrl: first, ...(more.length > 0 && { databaseUrls: more.join() }) };
}

export function connectAll(urls: readonly string[], options: Omit<ConnectionOptions, "url">): Connections {
  const each = urls.map((url) => createConnection({ ...options, url }));
  return {
    each,
    query: async <Row extends object>(text: string, parameters?: readonly Parameter[]): Promise<Row[]> =>
      (await Promise.all(each.map((one) => one.query<Row>(text, parameters)))).flat(),
    script: async (text) => void (await Promise.all(each.map((one) => one.script(text)))),
    close: async () => void (await Promise.all(each.map((one) => one.close()))),
  };
}
