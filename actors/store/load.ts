import assert from "node:assert";
import { toSeq } from "../../proto/ids.ts";
import { codeOf, type Pool } from "./connection.ts";
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

/** Keys of one call: so many records of the usual size are a few hundred kilobytes, of the largest one text still. */
const chunkMax = 500;

/** See {@link Store.load}. */
export async function load(reads: Pool, keys: readonly EntityKey[]): Promise<StoredEntity[]> {
  const chunks: Promise<StoredEntity[]>[] = [];
  for (let at = 0; at < keys.length; at += chunkMax) chunks.push(loadChunk(reads, keys.slice(at, at + chunkMax)));
  return (await Promise.all(chunks)).flat();
}

/** All records as one text: half the client's work of a row each, which is for records that would not fit. */
async function loadChunk(reads: Pool, keys: readonly EntityKey[]): Promise<StoredEntity[]> {
  const { packed, escaped } = packAll(({ rows, text }) => {
    return rows(keys, (key) => `${key.shard}\x1f${text(key.type)}\x1f${text(key.eid)}`);
  });
  try {
    const text = String.raw`select string_agg(meta, e'\x1e') as metas, string_agg(state, e'\x1e') as states
      from starling.load_1($1, $2)`;
    const [row] = await reads.query<{ metas: string | null; states: string | null }>(text, [escaped, packed]);
    if (row === undefined || row.metas === null) return [];
    const metas = row.metas.split("\x1e");
    const states = row.states?.split("\x1e") ?? [];
    if (metas.length === states.length) return metas.map((meta, i) => toEntity(keys, meta, states[i] ?? ""));
  } catch (error) {
    const code = codeOf(error);
    if (code !== "54000" && code !== "ERR_STRING_TOO_LONG") throw error;
  }
  const text = "select meta, state from starling.load_1($1, $2)";
  const rows = await reads.query<{ meta: string; state: string }>(text, [escaped, packed]);
  return rows.map(({ meta, state }) => toEntity(keys, meta, state));
}

function toEntity(keys: readonly EntityKey[], meta: string, state: string): StoredEntity {
  const [at, created, createdAt, applied, tombstone] = meta.split(" ");
  const key = keys[Number(at) - 1];
  assert(key !== undefined, "a loaded entity was asked for");
  return {
    shard: key.shard,
    type: key.type,
    eid: key.eid,
    created: toSeq(Number(created)),
    createdAt: Number(createdAt),
    applied: toSeq(Number(applied)),
    state,
    tombstone: tombstone === "1",
  };
}
