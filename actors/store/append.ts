import type { NodeId } from "../../proto/ids.ts";
import { toShardId } from "../../proto/ids.ts";
import { codeOf, type Pool } from "./connection.ts";
import { parseLetterId } from "./dead-letter.ts";
import { packAll, packNumbers, unpackNumbers } from "./pack.ts";
import type { Partitions } from "./partition.ts";
import { briefKeysMax } from "./schema.ts";
import type { AppendRequest, Fence, Segment, WriteResult } from "./store.ts";

/**
 * Fence, closings and rows in one call. A closing whose dead letter is no longer open refuses the call (class 22, so that
 * the group is halved), unless the rows are there already: then the call is a repeat.
 */
export const appendFunctions = String.raw`
create function starling.append_1(p_node text, p_shards int[], p_epochs bigint[], p_escaped boolean,
  p_rows text, p_bodies text, p_closings text) returns text language plpgsql as $$
declare
  v_lost text := starling.fence_1(p_node, p_shards, p_epochs);
  v_written bigint;
  v_closed bigint;
begin
  if v_lost is not null then
    return v_lost;
  end if;
  insert into starling.log (shard, seq, last_seq, at, brief, keys, head, body)
    select f[1]::int, f[2]::bigint, f[3]::bigint, starling.to_time_1(f[4]::bigint),
        case when f[5] = '' then null else decode(substr(f[5], 2), 'hex') end, f[6],
        starling.unpack_1(f[7], p_escaped), starling.unpack_1(coalesce(r.body, ''), p_escaped)
      from rows from (string_to_table(p_rows, e'\x1e'), string_to_table(p_bodies, e'\x1e')) r(fields, body),
        lateral (select string_to_array(r.fields, e'\x1f') offset 0) s(f)
    on conflict (shard, seq, at) do nothing;
  get diagnostics v_written = row_count;
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

const appendText = "select starling.append_1($1, $2, $3, $4, $5, $6, $7) as lost";

function packAppend(node: NodeId, { fences, segments, closings = [] }: AppendRequest) {
  const sorted = [...segments].sort((a, b) => a.shard - b.shard || a.seq - b.seq);
  const { packed, escaped } = packAll(({ rows, text }) => [
    rows(sorted, (s) => `${s.shard}\x1f${s.seq}\x1f${s.lastSeq}\x1f${s.at}\x1f${keysOf(s)}\x1f${text(s.head)}`),
    rows(sorted, (s) => text(s.body)),
  ]);
  const ids = closings.map(({ id }) => parseLetterId(id).join("-")).join(",");
  return [node, ...packFences(fences), escaped, ...packed, ids];
}

/** The columns brief and keys. The brief is marked, so that a small segment without any key has one too. */
function keysOf({ keys }: Segment): string {
  return keys.length <= briefKeysMax * 8 ? `.${keys}\x1f` : `\x1f${keys}`;
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
