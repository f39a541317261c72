import { toSeq } from "../../proto/ids.ts";
import type { Pool } from "./connection.ts";
import { packAll } from "./pack.ts";
import type { EntityKey, StoredEntity } from "./store.ts";

/** One row per entity found: its place in the request, four numbers as one text, and the record. */
export const loadFunctions = String.raw`
create function starling.load_1(p_escaped boolean, p_keys text)
  returns table (meta text, state text) language sql stable begin atomic
  select k.i || ' ' || e.created || ' ' || starling.to_ms_1(e.created_at) || ' ' || e.applied || ' ' || e.tombstone::int,
      e.state
    from (select string_to_array(r, e'\x1f'), i from string_to_table(p_keys, e'\x1e') with ordinality t(r, i) offset 0) k(f, i),
      lateral (
        select * from starling.entity e
          where e.shard = f[1]::int and e.type = f[2] and e.eid = starling.unpack_1(f[3], p_escaped) offset 0
      ) e;
end;
`;

/** See {@link Store.load}. */
export async function load(reads: Pool, keys: readonly EntityKey[]): Promise<StoredEntity[]> {
  if (keys.length === 0) return [];
  const { packed, escaped } = packAll((packer) => packer.rows(keys, (key) => [key.shard, key.type, key.eid]));
  const text = "select meta, state from starling.load_1($1, $2)";
  const rows = await reads.query<{ meta: string; state: string }>(text, [escaped, packed]);
  const found: StoredEntity[] = [];
  for (const { meta, state } of rows) {
    const [at, created, createdAt, applied, tombstone] = meta.split(" ");
    const key = keys[Number(at) - 1];
    if (key === undefined) continue;
    found.push({
      shard: key.shard,
      type: key.type,
      eid: key.eid,
      created: toSeq(Number(created)),
      createdAt: Number(createdAt),
      applied: toSeq(Number(applied)),
      state,
      tombstone: tombstone === "1",
    });
  }
  return found;
}
