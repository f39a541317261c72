import { describe, expect, it } from "vitest";
import { parseDistinct, parseSort } from "../../../actors/filters/parse-sort.ts";
import { everything } from "../../../actors/filters/snapshot-filter.ts";
import { readSnapshotHistory } from "../../../actors/snapshots/snapshot-history.ts";
import { openPostgresStore, type PostgresStore } from "../../../actors/store/postgres-store.ts";
import { createShardedSnapshotQueries } from "../../../actors/store/sharded-snapshot-queries.ts";
import { findEntity } from "../../../modules/check-datapoint.ts";
import { toShardId } from "../../../proto/ids.ts";
import { configModel } from "../../support/config-model.ts";
import { testDatabase } from "../../support/postgres.ts";
import { instantOf, openSnapshotRows } from "../../support/snapshot-rows.ts";

const model = configModel({ bus: { seats: "plain int", tags: "plain array<string>" } });
const bus = findEntity(model, "bus");

describe("snapshots over two databases", () => {
  it("are told as those of one", async () => {
    const own = await Promise.all([testDatabase(), testDatabase()]);
    const stores = await Promise.all(
      own.map(({ url }) => openPostgresStore({ url, lanes: 1, shards: { entity: 8, system: 2 } })),
    );
    const tables = own.map(({ url }) => openSnapshotRows(url));
    try {
      const queriesOf = (shard: number) => (stores[shard % 2] as PostgresStore).snapshotQueries;
      const queries = createShardedSnapshotQueries(
        stores.map(({ snapshotQueries }) => snapshotQueries),
        queriesOf,
      );
      // The runs lie in the second one.
      await tables[1]?.run(1);
      const seats = [7, 100, null, 9, 20, 100];
      for (const [i, count] of seats.entries()) {
        const body = { eid: `b${i}`, tags: [`t${i % 2}`], ...(count !== null && { seats: count }) };
        await tables[i % 2]?.row("bus", `b${i}`, body, [1, null], i);
      }
      expect(await queries.finishedRun(null)).toEqual({ tick: 1, at: instantOf(1) });
      const asked = { type: "bus", tick: 1, filter: everything };
      const list = async (sort: string, skip = 0, limit = 9) => {
        const places = await queries.listSnapshots({ ...asked, sort: [parseSort(bus, sort)], skip, limit });
        const bodies = await queries.snapshotBodies(places);
        expect(bodies.map((body) => JSON.parse(body ?? "{}").eid)).toEqual(places.map(({ eid }) => eid));
        return places.map(({ eid }) => eid).join(" ");
      };
      expect(await list("seats")).toBe("b2 b0 b3 b4 b1 b5");
      expect(await list("seats:-1")).toBe("b5 b1 b4 b3 b0 b2");
      expect(await list("seats", 2, 3)).toBe("b3 b4 b1");
      expect(await list("eid", 5)).toBe("b5");
      expect(await queries.countSnapshots(asked)).toBe(6);
      expect(await queries.distinctValues({ ...asked, path: parseDistinct(bus, "tags"), limit: 1 })).toEqual([
        { value: '"t0"', count: 3 },
      ]);
      const key = { shard: toShardId(0), type: "bus", eid: "b0" };
      expect(await readSnapshotHistory(queries, key, { before: null, limit: 9 })).toHaveLength(1);
    } finally {
      for (const one of [...tables, ...stores, ...own]) await one.close();
    }
  });
});
