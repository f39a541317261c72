import assert from "node:assert";
import { toSeq } from "../../proto/ids.ts";
import type { Pool } from "./connection.ts";
import { isMarked, type LargeValue, markedSql, wholeState } from "./large-value.ts";
import { packAll, packKeys } from "./pack.ts";
import { codeOf } from "./postgres-error.ts";
import type { EntityKey, StoredEntity } from "./store.ts";

/** One row per entity found: its place in the request, and its columns. */
export const loadFunctions = String.raw`
create function starling.load_1(p_escaped boolean, p_shards int[], p_types text, p_eids text) returns table (place int,
  created bigint, created_at timestamptz, applied bigint, tombstone boolean, state text, large text)
  language sql stable begin atomic
  select k.place, e.created, e.created_at, e.applied, e.tombstone, e.state,
      case when ${markedSql("e.state")} then starling.large_values_1(k.shard, k.type, k.eid) end
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

/** What answers questions: a pool, or one connection. */
type Reads = Pick<Pool, "query">;

/** See {@link Store.load}. */
export async function load(reads: Reads, keys: readonly EntityKey[]): Promise<StoredEntity[]> {
  const chunks: Promise<StoredEntity[]>[] = [];
  for (let at = 0; at < keys.length; at += chunkMax) chunks.push(loadChunk(reads, keys.slice(at, at + chunkMax)));
  return (await Promise.all(chunks)).flat();
}

/** Rows of `starling.entity` with whole states; marked ones are read again, and are missing if they have gone. */
export async function readWhole<Row extends EntityKey & { readonly state: string }>(
  reads: Reads,
  rows: readonly Row[],
): Promise<Row[]> {
  const wanted = rows.filter(({ state }) => isMarked(state));
  if (wanted.length === 0) return [...rows];
  const found = new Map((await load(reads, wanted)).map((stored) => [textOf(stored), stored]));
  return rows.flatMap((row) => {
    if (!isMarked(row.state)) return row;
    const stored = found.get(textOf(row));
    if (stored === undefined || stored.tombstone) return [];
    const { large, ...rest } = stored;
    return { ...row, ...rest, state: wholeState(rest.state, large) };
  });
}

/** All records as one text: half the client's work of a row each, which is for records that would not fit. */
async function loadChunk(reads: Reads, keys: readonly EntityKey[]): Promise<StoredEntity[]> {
  const { packed, escaped } = packAll((packer) => packKeys(packer, keys));
  const parameters = [escaped, ...packed];
  try {
    const [row] = await reads.query<ChunkRow>(chunkText, parameters);
    if (row === undefined || row.numbers === null) return [];
    const numbers = row.numbers.split(",");
    const states = row.states?.split("\x1e") ?? [];
    // A record that holds the separator itself.
    if (numbers.length === states.length * numbersPerRecord) {
      const entities = states.map((state, i) => toEntity(keys, numbers, i * numbersPerRecord, state));
      if (row.large === null) return entities;
      const large = readLarge(row.large);
      return entities.map((entity, i) => withLarge(entity, large.get(numbers[i * numbersPerRecord])));
    }
  } catch (error) {
    const code = codeOf(error);
    if (code !== "54000" && code !== "ERR_STRING_TOO_LONG") throw error;
  }
  const rows = await reads.query<{ numbers: string; state: string; large: string | null }>(rowsText, parameters);
  return rows.map(({ numbers, state, large }) => {
    const entity = toEntity(keys, numbers.split(","), 0, state);
    return large === null ? entity : withLarge(entity, [...readLarge(large).values()][0]);
  });
}

interface ChunkRow {
  readonly numbers: string | null;
  readonly states: string | null;
  readonly large: string | null;
}

const numbersPerRecord = 5;
const numbers = "concat_ws(',', place, created, starling.to_ms_1(created_at), applied, tombstone::int)";
const large = "place || ' ' || large";
const rowsText = `select ${numbers} as numbers, state, ${large} as large from starling.load_1($1, $2, $3, $4)`;
const chunkText = `select string_agg(${numbers}, ',') as numbers, string_agg(state, e'\\x1e') as states,
  string_agg(${large}, e'\\x1e') as large from starling.load_1($1, $2, $3, $4)`;

/** Large values by place. JSON makes a text of its own of each: one cut out of a longer text would hold all of that. */
function readLarge(text: string): ReadonlyMap<string | undefined, LargeValue[]> {
  const records = text.split("\x1e").map((record): [string, LargeValue[]] => {
    const blank = record.indexOf(" ");
    const bodies = JSON.parse(record.slice(blank)) as Record<string, string>;
    return [record.slice(0, blank), Object.entries(bodies).map(([attr, body]) => ({ attr, body }))];
  });
  return new Map(records);
}

function withLarge(entity: StoredEntity, large: LargeValue[] | undefined): StoredEntity {
  return large === undefined ? entity : { ...entity, large };
}

function textOf({ shard, type, eid }: EntityKey): string {
  return `${shard} ${type} ${eid}`;
}

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
