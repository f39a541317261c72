import type { NodeId } from "../../proto/ids.ts";
import { toShardId } from "../../proto/ids.ts";
import type { Pool } from "./connection.ts";
import { parseLetterId } from "./dead-letter.ts";
import { packAll, packNumbers, unpackNumbers } from "./pack.ts";
import type { Partitions } from "./partition.ts";
import { codeOf } from "./postgres-error.ts";
import { briefKeysMax } from "./schema.ts";
import type { AppendRequest, Fence, Segment, WriteResult } from "./store.ts";

/**
 * Fence, closings and rows in one call. A closing whose dead letter is no longer open refuses the call (class 22, so that
 * the group is halved), unless the rows are there already: then the call is a repeat. As in `flush_1`, columns come one by
 * one, and only a repeat looks whether its rows are there: to look first costs as much as to insert.
 */
export const appendFunctions = String.raw`
create function starling.append_1(p_node text, p_shards int[], p_epochs bigint[], p_escaped boolean,
  p_log_shards int[], p_seqs bigint[], p_last_seqs bigint[], p_ats bigint[], p_keys text, p_heads text, p_bodies text,
  p_closings text) returns text language plpgsql as $$
declare
  v_lost text := starling.fence_1(p_node, p_shards, p_epochs);
  v_written bigint;
  v_closed bigint;
begin
  if v_lost is not null then
    return v_lost;
  end if;
  begin
    insert into starling.log (shard, seq, last_seq, at, brief, keys, head, body)
      select r.* from starling.log_rows_1(p_escaped, p_log_shards, p_seqs, p_last_seqs, p_ats, p_keys, p_heads, p_bodies) r
      where p_log_shards <> '{}';
    get diagnostics v_written = row_count;
  exception when unique_violation then
    insert into starling.log (shard, seq, last_seq, at, brief, keys, head, body)
      select r.* from starling.log_rows_1(p_escaped, p_log_shards, p_seqs, p_last_seqs, p_ats, p_keys, p_heads, p_bodies) r
      on conflict (shard, seq, at) do nothing;
    get diagnostics v_written = row_count;
  end;
  if p_closings <> '' then
    update starling.dead_letter d set status = 'replayed'
      from (select string_to_array(c, '-')::bigint[] from string_to_table(p_closings, ',') c) s(f)
      where d.shard = f[1] and d.seq = f[2] and d.number = f[3] and d.status = 'open';
    get diagnostics v_closed = row_count;
    if v_written > 0 and v_closed < cardinality(string_to_array(p_closings, ',')) then
      raise exception 'a dead letter is no longer open' using errcode = '22023';
    end if;
  end if;
  return null;
end
$$;

-- A key column that begins with a point is a brief, in hex.
create function starling.log_rows_1(p_escaped boolean, p_shards int[], p_seqs bigint[], p_last_seqs bigint[],
  p_ats bigint[], p_keys text, p_heads text, p_bodies text)
  returns table (shard int, seq bigint, last_seq bigint, at timestamptz, brief bytea, keys text, head text, body text)
language sql stable begin atomic
  select r.shard, r.seq, r.last_seq, starling.to_time_1(r.at),
      case when starts_with(r.keys, '.') then decode(substr(r.keys, 2), 'hex') end,
      case when starts_with(r.keys, '.') then '' else r.keys end, r.head, r.body
    from (
      select unnest(p_shards), unnest(p_seqs), unnest(p_last_seqs), unnest(p_ats),
          unnest(starling.split_1(p_keys, false)), unnest(starling.split_1(p_heads, p_escaped)),
          unnest(starling.split_1(p_bodies, p_escaped))
    ) r(shard, seq, last_seq, at, keys, head, body);
end;
`;

/** See {@link Store.append}; makes the partition that a segment needs. */
export async function append(
  pool: Pool,
  partitions: Partitions,
  node: NodeId,
  request: AppendRequest,
): Promise<WriteResult> {
  const parameters = packAppend(node, request);
  for (let attempt = 0; ; attempt++) {
    await partitions.ensure(request.segments);
    try {
      const rows = await pool.query<{ lost: string | null }>(appendText, parameters);
      return toWriteResult(rows);
    } catch (error) {
      // A partition that retention took away since: no other check can fail on this table.
      if (codeOf(error) !== "23514" || attempt > 2) throw error;
      partitions.forget();
    }
  }
}

const appendText = "select starling.append_1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) as lost";

function packAppend(node: NodeId, { fences, segments, closings = [] }: AppendRequest) {
  const sorted = segments.toSorted(bySeq);
  const { packed, escaped } = packAll(({ column }) => [
    column(sorted.map(keysOf)),
    column(sorted.map((s) => s.head)),
    column(sorted.map((s) => s.body)),
  ]);
  const numbers = [
    packNumbers(sorted.map((s) => s.shard)),
    packNumbers(sorted.map((s) => s.seq)),
    packNumbers(sorted.map((s) => s.lastSeq)),
    packNumbers(sorted.map((s) => s.at)),
  ];
  const ids = closings.map(({ id }) => parseLetterId(id).join("-")).join(",");
  return [node, ...packFences(fences), escaped, ...numbers, ...packed, ids];
}

function bySeq(a: Segment, b: Segment): number {
  return a.shard - b.shard || a.seq - b.seq;
}

/** The keys of a small segment stand in the index (brief), those of a large one in its row. */
function keysOf({ keys }: Segment): string {
  return keys.length <= briefKeysMax * 8 ? `.${keys}` : keys;
}

/** Shards and epochs, sorted by shard: all transactions lock in one order. */
export function packFences(fences: readonly Fence[]): [shards: string, epochs: string] {
  const sorted = [...fences].sort((a, b) => a.shard - b.shard);
  return [packNumbers(sorted.map(({ shard }) => shard)), packNumbers(sorted.map(({ epoch }) => epoch))];
}

/** The answer of a writing function. */
export function toWriteResult(rows: readonly { lost: string | null }[]): WriteResult {
  return { lost: unpackNumbers(rows[0]?.lost).map(toShardId) };
}
