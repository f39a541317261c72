import assert from "node:assert";
import { toSeq } from "../../proto/ids.ts";
import { codeOf, type Pool } from "./connection.ts";
import { packAll, packKeys } from "./pack.ts";
import type { EntityKey, StoredEntity } from "./store.ts";

/** One row per entity found: its place in the request, and its columns. */
export const loadFunctions = String.raw`
create function starling.load_1(p_escaped boolean, p_shards int[], p_types text, p_eids text)
  returns table (place int, created bigint, created_at timestamptz, applied bigint, tombstone boolean, state text)
  language sql stable begin atomic
  select k.place, e.created, e.created_at, e.applied, e.tombstone, e.state
    from (
      select generate_series(1, cardinality(p_shards)), unnest(p_shards), unnest(starling.split_1(p_types, p_escaped)),
        unnest(starling.split_1(p_eids, p_escaped))
    ) k(place, shard, type, eid), lateral (
      select * from starling.entity e where e.shard = k.shard and e.type = k.type and e.eid = k.eid offset 0
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
  const { packed, escaped } = packAll((packer) => packKeys(packer, keys));
  const parameters = [escaped, ...packed];
  try {
    const [row] = await reads.query<{ numbers: string | null; states: string | null }>(chunkText, parameters);
    if (row === undefined || row.numbers === null) return [];
    const numbers = row.numbers.split(",");
    const states = row.states?.split("\x1e") ?? [];
    // A record that holds the separator itself.
    if (numbers.length === states.length * numbersPerRecord) {
      return states.map((state, i) => toEntity(keys, numbers, i * numbersPerRecord, state));
    }
  } catch (error) {
    const code = codeOf(error);
    if (code !== "54000" && code !== "ERR_STRING_TOO_LONG") throw error;
  }
  const rows = await reads.query<{ numbers: string; state: string }>(rowsText, parameters);
  return rows.map(({ numbers, state }) => toEntity(keys, numbers.split(","), 0, state));
}

const numbersPerRecord = 5;
const numbers = "concat_ws(',', place, created, starling.to_ms_1(created_at), applied, tombstone::int)";
const rowsText = `select ${numbers} as numbers, state from starling.load_1($1, $2, $3, $4)`;
const chunkText = `select string_agg(${numbers}, ',') as numbers, string_agg(state, e'\\x1e') as states
  from starling.load_1($1, $2, $3, $4)`;

function toEntity(keys: readonly EntityKey[], numbers: readonly string[], at: number, state: string): StoredEntity {
  const key = keys[Number(numbers[at]) - 1];
  assert(key !== undefined, "a loaded entity was asked for");
  return {
    shard: key.shard,
    type: key.type,
    eid: key.eid,
    created: toSeq(Number(numbers[at + 1])),
    createdAt: Number(numbers[at + 2]),
    applied: toSeq(Number(numbers[at + 3])),
    state,
    tombstone: numbers[at + 4] === "1",
  };
}
