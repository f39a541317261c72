import { type ShardId, toSeq, toShardId } from "../../proto/ids.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import type { Pool } from "./connection.ts";
import type { DeadLetterKind, DeadLetterStatus, Queries, StoredDeadLetter } from "./store.ts";

interface LetterRow {
  readonly shard: number;
  readonly seq: number;
  readonly number: number;
  readonly kind: DeadLetterKind;
  readonly hook: string;
  readonly type: string;
  readonly eid: string;
  readonly code: string;
  readonly error: string;
  readonly at: number;
  readonly status: DeadLetterStatus;
  readonly task: string;
}

const columns = `shard, seq::float8 as seq, number, kind, hook, type, eid, code, error, starling.to_ms_1(at) as at,
  status, task`;

/** See {@link Queries.deadLetters}: in the order of shard, seq and number. */
export async function listDeadLetters(
  reads: Pool,
  { after, limit, status }: Parameters<Queries["deadLetters"]>[0],
): Promise<StoredDeadLetter[]> {
  const [shard, seq, number] = after === "" ? [-1, 0, 0] : parseLetterId(after);
  const text = `select ${columns} from starling.dead_letter where (shard, seq, number) > ($1, $2, $3)
    and ($4::text is null or status = $4) order by shard, seq, number limit $5`;
  return (await reads.query<LetterRow>(text, [shard, seq, number, status, limit])).map(toLetter);
}

/** See {@link Queries.deadLetter}. */
export async function readDeadLetter(reads: Pool, id: string): Promise<StoredDeadLetter | null> {
  const text = `select ${columns} from starling.dead_letter where shard = $1 and seq = $2 and number = $3`;
  const [row] = await reads.query<LetterRow>(text, parseLetterId(id));
  return row === undefined ? null : toLetter(row);
}

/** See {@link Queries.countDeadLetters}. */
export async function countDeadLetters(reads: Pool): Promise<Map<ShardId, number>> {
  const text = "select shard, count(*)::int as n from starling.dead_letter where status = 'open' group by shard";
  const rows = await reads.query<{ readonly shard: number; readonly n: number }>(text, []);
  return new Map(rows.map(({ shard, n }) => [toShardId(shard), n]));
}

/** See {@link Queries.discardDeadLetter}. One that is no longer open stays as it is, and is returned so. */
export async function discardDeadLetter(control: Pool, id: string): Promise<StoredDeadLetter | null> {
  const text = `update starling.dead_letter set status = 'discarded'
    where shard = $1 and seq = $2 and number = $3 and status = 'open' returning ${columns}`;
  const [row] = await control.query<LetterRow>(text, parseLetterId(id));
  return row === undefined ? readDeadLetter(control, id) : toLetter(row);
}

function toLetter({ number, ...row }: LetterRow): StoredDeadLetter {
  return { ...row, shard: toShardId(row.shard), seq: toSeq(row.seq), id: `${row.shard}-${row.seq}-${number}` };
}

/** The parts of a dead letter's id. Raises INVALID_ARGUMENT. */
export function parseLetterId(id: string): [shard: number, seq: number, number: number] {
  const match = /^(\d{1,9})-(\d{1,15})-(\d{1,9})$/.exec(id);
  if (match === null) throw new StarlingError("INVALID_ARGUMENT", `"${id}" is not the id of a dead letter`);
  return [Number(match[1]), Number(match[2]), Number(match[3])];
}
