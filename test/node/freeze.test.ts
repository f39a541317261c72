import { join } from "node:path";
import { expect, test } from "vitest";
import { type Connection, createConnection } from "../../actors/store/connection.ts";
import { openPostgresStore } from "../../actors/store/postgres-store.ts";
import { connect } from "../../proto/client.ts";
import { type ShardGroup, shardId, toNodeId } from "../../proto/ids.ts";
import { dumpDatabase } from "../support/database-dump.ts";
import { startNodeProcess } from "../support/node-process.ts";
import { testDatabase } from "../support/postgres.ts";
import { repository } from "../support/repository.ts";

const connection = { application: "test", statementTimeoutMs: 60_000, connectTimeoutMs: 10_000 };

/**
 * All that a node writes. Only a flush that is refused may leave the place of its lane behind, with the number 0: it says that
 * nothing was flushed.
 */
async function dumpWritten(watcher: Connection): Promise<string> {
  const places = "select node, lane, number::int from starling.flushed where number > 0 order by 1, 2";
  return `${await dumpDatabase(watcher, ["flushed"])}\n${JSON.stringify(await watcher.query(places))}`;
}

/** What the node has in hand when it freezes: the statement, and the table that is locked so that it cannot end. */
const inHand = [
  ["an append", "%append%", "log"],
  ["a flush", "%flush%", "entity"],
] as const;

test.each(inHand)(
  "a writer frozen in %s, its shards taken over, writes nothing more and says why (P4, R22)",
  async (what, statement, table) => {
    const database = await testDatabase();
    const configDir = join(repository, "test/support/node-config");
    const node = await startNodeProcess({ configDir, databaseUrl: database.url });
    const store = await openPostgresStore({ url: database.url, lanes: 1, shards: { entity: 256, system: 16 } });
    const blocker = createConnection({ ...connection, url: database.url });
    const watcher = createConnection({ ...connection, url: database.url });
    const client = await connect({ address: node.address, giveUpAfterMs: 500 });
    try {
      await client.send([{ type: "device", eid: "x", attr: "level", v: 1, t1: 1 }]);
      // What its hook derived is appended, too: nothing but what comes next will wait.
      const totals = async () => (await client.entities.get({ type: "site", eid: "1" })).attributes.total;
      await expect.poll(totals, { timeout: 10_000 }).toBeDefined();
      // It has passed the fence and holds its locks, but cannot write its rows.
      await blocker.script(`begin; lock table starling.${table} in exclusive mode`);
      const sent = client.send([{ type: "device", eid: "x", attr: "level", v: 2, t1: 2 }]).then(
        () => "acknowledged",
        () => "refused",
      );
      const waiting = `select 1 from pg_stat_activity where query like '${statement}' and wait_event_type = 'Lock'`;
      await expect.poll(async () => (await watcher.query(waiting)).length, { timeout: 10_000 }).toBeGreaterThan(0);
      if (what === "a flush") expect(await sent).toBe("acknowledged");
      node.freeze();

      const every = (group: ShardGroup, count: number) => Array.from({ length: count }, (_, i) => shardId(group, i));
      const taken = await store.acquire(toNodeId("successor"), [...every("entity", 256), ...every("system", 16)]);
      expect(taken).toHaveLength(272);
      expect(taken.every(({ epoch }) => epoch === 2)).toBe(true);
      // From here on the successor writes nothing.
      const before = await dumpWritten(watcher);
      await blocker.script("rollback");

      node.thaw();
      const said = await node.logged((line) => line.includes("taken over by another node"), 20_000);
      expect(JSON.parse(said)).toMatchObject({
        level: 50,
        msg: "shards were taken over by another node: this one may no longer write them",
      });
      expect(await node.ended).toBe(1);
      await node.logged((line) => /^starling: FENCED: \d+ shards were taken over by another node$/.test(line));
      expect(await dumpWritten(watcher)).toBe(before);
      expect(await sent).toBe(what === "an append" ? "refused" : "acknowledged");
      const values = await watcher.query("select v from starling.raw where attr = 'level' order by t1");
      expect(values).toEqual(what === "an append" ? [{ v: 1 }] : [{ v: 1 }, { v: 2 }]);
    } finally {
      await client.close().catch(() => {});
      await blocker.close();
      await watcher.close();
      await store.close();
      await node.kill();
      await database.close();
    }
  },
  60_000,
);
