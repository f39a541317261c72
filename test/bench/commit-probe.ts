import type { Connection } from "../../actors/store/connection.ts";
import type { Bed } from "./bed.ts";

const everyMs = 50;

/** Commits one row every 50 ms, in a database of its own, while something runs. Latencies in ms. */
export async function whileCommitting<T>(
  bed: Bed,
  run: () => Promise<T>,
): Promise<{ readonly result: T; readonly commits: readonly number[] }> {
  const database = await bed.createDatabase();
  const commits: number[] = [];
  const stop = new AbortController();
  try {
    return await bed.withConnection(database.url, async (connection) => {
      await connection.script("create table tick (at int)");
      const committing = (async () => {
        while (!stop.signal.aborted) commits.push(await commitOne(connection));
      })();
      try {
        return { result: await run(), commits };
      } finally {
        stop.abort();
        await committing;
      }
    });
  } finally {
    await database.close();
  }
}

async function commitOne(connection: Connection): Promise<number> {
  const started = performance.now();
  await connection.query("insert into tick values (1)");
  const took = performance.now() - started;
  await new Promise((resolve) => setTimeout(resolve, Math.max(0, everyMs - took)));
  return took;
}
