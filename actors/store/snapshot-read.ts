import { toShardId } from "../../proto/ids.ts";
import type { Pool } from "./connection.ts";
import { createGather } from "./gather.ts";
import { packAll, packKeys, packNumbers } from "./pack.ts";
import type { SnapshotStore, SnapshotTasks, SnapshotValueLinks, SnapshotValueRow } from "./snapshot-store.ts";
import type { EntityKey } from "./store.ts";

/** See {@link SnapshotStore.readTasks}. */
export async function readTasks(reads: Pool, shards: readonly number[], limit: number): Promise<SnapshotTasks[]> {
  const text = `select shard, tick::float8 as tick, page, body from starling.snapshot_task where shard = any($1::int[])
    order by shard, tick, page limit $2`;
  type Row = { readonly shard: number; readonly tick: number; readonly page: number; readonly body: string };
  const rows = await reads.query<Row>(text, [packNumbers(shards), limit]);
  return rows.map((row) => ({ ...row, shard: toShardId(row.shard) }));
}

/** See {@link SnapshotStore.readValueLinks}. */
export async function readValueLinks(
  reads: Pool,
  after: EntityKey | null,
  limit: number,
): Promise<SnapshotValueLinks[]> {
  const text = `select shard, eid, type, tick::float8 as tick, links, was,
      octet_length(body) as bytes from starling.snapshot_value
    where (shard, eid, type) > ($1, $2, $3) order by shard, eid, type limit $4`;
  type Row = {
    readonly shard: number;
    eid: string;
    type: string;
    tick: number;
    links: string;
    was: string;
    bytes: number;
  };
  const rows = await reads.query<Row>(text, [after?.shard ?? -1, after?.eid ?? "", after?.type ?? "", limit]);
  return rows.map((row) => ({ ...row, shard: toShardId(row.shard) }));
}

/** See {@link SnapshotStore.readValues}: calls that come at once go together. */
export function createValueReads(reads: Pool): Pick<SnapshotStore, "readValues"> {
  const read = createGather<readonly EntityKey[], SnapshotValueRow[]>({
    run: (lists) => readValueLists(reads, lists),
    ...{ groupsMax: 1, keyOf: () => "", weightOf: (keys) => keys.length, weightMax: keysMax },
  });
  return { readValues: (keys) => read(keys) };
}

/** Values that are read together. */
const keysMax = 2_000;

async function readValueLists(reads: Pool, lists: readonly (readonly EntityKey[])[]): Promise<SnapshotValueRow[][]> {
  const keys = lists.flatMap((list, place) => list.map((key) => ({ place, key })));
  const { packed, escaped } = packAll((packer) =>
    packKeys(
      packer,
      keys.map(({ key }) => key),
    ),
  );
  const text = `select k.i - 1 as i, v.due::float8 as due, v.body || v.changes as body from (
      select generate_series(1, cardinality($2::int[])), unnest($2::int[]), unnest(starling.split_1($3, $1)),
        unnest(starling.split_1($4, $1))
    ) k(i, shard, type, eid)
    join starling.snapshot_value v on v.shard = k.shard and v.eid = k.eid and v.type = k.type
    where v.body <> ''`;
  const found = lists.map((): SnapshotValueRow[] => []);
  for (const row of await reads.query<{ i: number; due: number | null; body: string }>(text, [escaped, ...packed])) {
    const asked = keys[row.i];
    if (asked === undefined) continue;
    const { shard, type, eid } = asked.key;
    found[asked.place]?.push({ shard, type, eid, due: row.due, body: row.body });
  }
  return found;
}
