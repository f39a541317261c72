import { type Seq, type ShardId, toSeq, toShardId } from "../../proto/ids.ts";
import type { Pool } from "./connection.ts";
import type { AskedPart, SegmentHead } from "./store.ts";

/**
 * One row per segment that holds a part of the asked channel, from the first asked part's segment to the last one's: a
 * channel's numbers grow with the seqs of its shard. A sender that repeats goes upward, so the place of the last answer is
 * where to look first; else what is asked for is usually new, and found from the log's end.
 */
const findText = `
with asked as materialized (
  select * from json_to_recordset($1::text::json)
    as a(at int, shard int, any_part text, first_part text, last_part text, from_seq bigint)
), begun as materialized (
  select a.*, coalesce(
    (select l.seq from starling.log l where a.from_seq > 0 and l.shard = a.shard and l.seq >= a.from_seq
      and strpos(l.head, a.first_part) > 0 order by l.seq limit 1),
    (select l.seq from starling.log l where l.shard = a.shard and strpos(l.head, a.first_part) > 0
      order by l.seq desc limit 1)) as first_seq
  from asked a
), bounded as materialized (
  select b.*, coalesce(
    (select l.seq from starling.log l where l.shard = b.shard and l.seq >= b.first_seq
      and strpos(l.head, b.last_part) > 0 order by l.seq limit 1), b.first_seq) as last_seq
  from begun b
)
select b.at as asked, l.shard, l.seq::float8 as seq, l.head
  from bounded b cross join lateral (
    select l.* from starling.log l where l.shard = b.shard and l.seq between b.first_seq and b.last_seq
      and strpos(l.head, b.any_part) > 0 order by l.seq offset 0
  ) l
  order by l.seq`;

interface HeadRow {
  /** Which of the runs. */
  readonly asked: number;
  readonly shard: number;
  readonly seq: number;
  readonly head: string;
}

/** Parts of one channel of one shard, by their number. */
interface Run {
  readonly shard: ShardId;
  readonly channel: string;
  readonly from: Seq;
  readonly places: { readonly number: number; readonly index: number }[];
}

/** See {@link Store.findParts}. */
export async function findParts(reads: Pool, asked: readonly AskedPart[]): Promise<(SegmentHead | null)[]> {
  const found: (SegmentHead | null)[] = asked.map(() => null);
  const runs = runsOf(asked);
  await findRuns(reads, runs, found);
  // The ends of a run may be missing in the log, and others of it not.
  const alone = runs.filter(({ places }) => places.length > 1).flatMap((run) => separate(run, found));
  await findRuns(reads, alone, found);
  return found;
}

/** How a part begins in a segment's head (see segment.ts). No string inside the head can look so: its quotes are escaped. */
export function partNeedle(channel: string, number: number): string {
  return `${channelNeedle(channel)}${number},`;
}

/** How each part of a channel begins there. */
export function channelNeedle(channel: string): string {
  return `[${JSON.stringify(channel)},`;
}

function runsOf(asked: readonly AskedPart[]): Run[] {
  const runs = new Map<string, Run>();
  for (const [index, { shard, channel, number, from }] of asked.entries()) {
    const key = `${shard} ${channel}`;
    const run = runs.get(key) ?? { shard, channel, from, places: [] };
    runs.set(key, run);
    run.places.push({ number, index });
  }
  for (const { places } of runs.values()) places.sort((a, b) => a.number - b.number);
  return [...runs.values()];
}

function separate(run: Run, found: readonly (SegmentHead | null)[]): Run[] {
  return run.places.filter(({ index }) => found[index] === null).map((place) => ({ ...run, places: [place] }));
}

async function findRuns(reads: Pool, runs: readonly Run[], found: (SegmentHead | null)[]): Promise<void> {
  if (runs.length === 0) return;
  const needle = ({ channel, places }: Run, at: number): string => partNeedle(channel, places.at(at)?.number ?? 0);
  const asked = runs.map((run, at) => ({
    ...{ at, shard: run.shard, from_seq: run.from, any_part: channelNeedle(run.channel) },
    ...{ first_part: needle(run, 0), last_part: needle(run, -1) },
  }));
  for (const row of await reads.query<HeadRow>(findText, [JSON.stringify(asked)])) {
    const run = runs[row.asked];
    if (run === undefined) continue;
    const head = { shard: toShardId(row.shard), seq: toSeq(row.seq), head: row.head };
    for (const { number, index } of run.places) {
      if (found[index] === null && row.head.includes(partNeedle(run.channel, number))) found[index] = head;
    }
  }
}
