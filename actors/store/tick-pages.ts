import { toSeq } from "../../proto/ids.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import type { Pool } from "./connection.ts";
import { createGather } from "./gather.ts";
import { readHistoryPages } from "./history.ts";
import { type LargeValue, wholeState } from "./large-value.ts";
import { pageBody } from "./snapshot-image.ts";
import type { HistoryPage, HistorySegment } from "./store.ts";
import type { TickPage, TickPageRequest, TickReads, TickRecord, TickWindows } from "./tick.ts";

/** In step 7: `tick_page_1`, which also tells whether this page is not the last one. */
export const tickPageFunctions = String.raw`
create function starling.tick_page_2(p_shard int, p_tick bigint, p_eid text, p_type text, p_limit int, p_bytes bigint,
  p_since bigint, p_due bigint, p_always text)
  returns table (eid text, type text, present boolean, created bigint, created_at timestamptz, applied bigint, state text,
    large text, history text, fresh text, more boolean) language plpgsql stable
set enable_seqscan = off set enable_bitmapscan = off set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_column
${pageBody(`,
        (select count(*) >= p_limit or (count(*) > 1 and max(s.upto) > p_bytes) from s)`)}end
$$;
`;

/** Shards that are read together, each up to the bytes of its request. */
const shardsMax = 8;
/** How often a page is read anew because an entity of it was deleted in between. */
const readsMax = 20;

/** See {@link TickReads.readTickPage}: calls for several shards go together. */
export function createTickReads(reads: Pool): TickReads {
  const read = createGather<TickPageCall, TickPage>({
    run: (calls) => readTickPages(reads, calls),
    ...{ groupsMax: 1, keyOf: () => "", weightOf: () => 1, weightMax: shardsMax },
  });
  return { readTickPage: (request, windowsOf) => read({ request, windowsOf }) };
}

export interface TickPageCall {
  readonly request: TickPageRequest;
  readonly windowsOf: TickWindows;
}

/** Pages in the order of the calls. */
export async function readTickPages(reads: Pool, calls: readonly TickPageCall[]): Promise<TickPage[]> {
  const pages = new Map<TickPageCall, TickPage>();
  let left = calls;
  for (let tries = 0; tries < readsMax && left.length > 0; tries++) {
    for (const [index, page] of (await readOnce(reads, left)).entries()) {
      if (page !== null) pages.set(left[index] as TickPageCall, page);
    }
    left = left.filter((call) => !pages.has(call));
  }
  if (left.length > 0) {
    const shards = left.map(({ request }) => request.shard).join();
    throw new StarlingError("STORE", `entities of shard ${shards} were deleted while they were read`);
  }
  return calls.map((call) => pages.get(call) as TickPage);
}

interface PageRow {
  readonly place: number;
  readonly eid: string;
  readonly type: string;
  readonly present: boolean;
  readonly created: number;
  readonly created_at: number;
  readonly applied: number;
  readonly state: string;
  readonly large: string | null;
  readonly history: string | null;
  readonly fresh: string | null;
  readonly more: boolean;
}

const pagesText = `select r.place, t.eid, t.type, t.present, t.created::float8 as created,
    starling.to_ms_1(t.created_at) as created_at, t.applied::float8 as applied, t.state, t.large, t.history, t.fresh, t.more
  from jsonb_to_recordset($1::text::jsonb) r(place int, shard int, tick bigint, eid text, type text, entities int,
    bytes bigint, since bigint, due bigint, always text)
  cross join lateral starling.tick_page_2(r.shard, r.tick, r.eid, r.type, r.entities, r.bytes, r.since, r.due, r.always) t`;

/** A page of one call, as it was read. */
interface OpenPage {
  readonly request: TickPageRequest;
  readonly rows: PageRow[];
  readonly records: Map<string, GrowingRecord>;
}

/** Null: the history of an entity became that of its image between the statements. */
async function readOnce(reads: Pool, calls: readonly TickPageCall[]): Promise<(TickPage | null)[]> {
  const wanted = calls.map(({ request }, place) => {
    const { shard, tick, after, limit, maxBytes, changed } = request;
    const only = changed && { since: changed.since, due: Math.floor(changed.at), always: changed.always.join(",") };
    return { place, shard, tick, eid: "", type: "", ...after, entities: limit, bytes: maxBytes, ...only };
  });
  const pages = calls.map(({ request }): OpenPage => ({ request, rows: [], records: new Map() }));
  for (const row of await reads.query<PageRow>(pagesText, [JSON.stringify(wanted)])) {
    const page = pages[row.place] as OpenPage;
    page.rows.push(row);
    if (row.present) page.records.set(keyOf(row), toRecord(page.request, row));
  }
  const windows = pages.map(({ rows, records }, place) => {
    const own = rows.flatMap((row) => (row.history === null ? (records.get(keyOf(row)) ?? []) : []));
    return own.length === 0 ? [] : (calls[place]?.windowsOf(own) ?? []);
  });
  const all = windows.flat();
  if (all.length > 0) {
    for (const found of await readHistoryPages(reads, all)) {
      for (const { request, records } of pages) {
        if (request.shard === found.shard) records.get(keyOf(found))?.pages.push(found);
      }
    }
  }
  const copies = all.length > 0 ? await countCopies(reads, pages) : [];
  return pages.map(({ rows, records }, place) => {
    const known = rows.filter(({ history }) => history !== null).length;
    if ((windows[place]?.length ?? 0) > 0 && (copies[place] ?? 0) > known) return null;
    const last = rows.at(-1);
    const next = last?.more === true ? { eid: last.eid, type: last.type } : null;
    return { records: [...records.values()], last: next };
  });
}

function keyOf({ type, eid }: { readonly type: string; readonly eid: string }): string {
  return `${type}\t${eid}`;
}

type GrowingRecord = TickRecord & { readonly pages: HistoryPage[] };

function toRecord({ shard }: TickPageRequest, row: PageRow): GrowingRecord {
  const { eid, type, history, fresh, large } = row;
  const key = { shard, type, eid };
  const copy = history === null ? null : (JSON.parse(history) as CopiedHistory);
  const added = copy === null ? readRows(fresh) : (copy.rows ?? []);
  return {
    ...key,
    ...{ created: toSeq(row.created), createdAt: row.created_at, applied: toSeq(row.applied) },
    state: large === null ? row.state : wholeState(row.state, readLarge(large)),
    rows: added.map(([seq, body]): HistorySegment => ({ ...key, seq: toSeq(seq), body })),
    pages: (copy?.pages ?? []).map(([attr, t1, t2, seq, place, cut, body]) => {
      return { ...key, attr, t1: Number(t1), t2: Number(t2), seq, place, cut: Number(cut), body };
    }),
  };
}

function readRows(fresh: string | null): readonly RowFields[] {
  return fresh === null ? [] : ((JSON.parse(fresh) as RowFields[] | null) ?? []);
}

function readLarge(text: string): LargeValue[] {
  return Object.entries(JSON.parse(text) as Record<string, string>).map(([attr, body]) => ({ attr, body }));
}

/** What a deletion copied; times that are infinite are texts. */
interface CopiedHistory {
  readonly rows: readonly RowFields[] | null;
  readonly pages: readonly PageFields[] | null;
}

type RowFields = readonly [seq: number, body: string];
type PageFields = readonly [
  attr: string,
  t1: number | string,
  t2: number | string,
  seq: number,
  place: number,
  cut: number | string,
  body: string,
];

/** Images that have a copy of their history, by page: between its place and its last row. */
async function countCopies(reads: Pool, pages: readonly OpenPage[]): Promise<number[]> {
  const text = `select p.place, (
      select count(*)::int from starling.snapshot_image i where i.shard = p.shard and i.tick = p.tick
        and (i.eid, i.type) > (p.eid, p.type) and (i.eid, i.type) <= (p.last_eid, p.last_type) and i.history is not null
    ) as count from jsonb_to_recordset($1::text::jsonb)
      p(place int, shard int, tick bigint, eid text, type text, last_eid text, last_type text)`;
  const asked = pages.flatMap(({ request: { shard, tick, after }, rows }, place) => {
    const last = rows.at(-1);
    if (last === undefined) return [];
    return [{ place, shard, tick, eid: "", type: "", ...after, last_eid: last.eid, last_type: last.type }];
  });
  const counts: number[] = [];
  for (const { place, count } of await reads.query<{ place: number; count: number }>(text, [JSON.stringify(asked)])) {
    counts[place] = count;
  }
  return counts;
}
