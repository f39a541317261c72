import { toShardId } from "../../proto/ids.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import type { SnapshotSort } from "../filters/snapshot-filter.ts";
import type { Parameter, Pool } from "./connection.ts";
import { codeOf } from "./postgres-error.ts";
import {
  conditionText,
  createParameters,
  eidKeyText,
  memberPlace,
  type SqlParameters,
  sortKeyText,
} from "./snapshot-condition.ts";
import { readMoments, readSpans } from "./snapshot-history.ts";
import type {
  DistinctSnapshots,
  DistinctValue,
  FinishedRun,
  ListSnapshots,
  SnapshotInstant,
  SnapshotPage,
  SnapshotPlace,
  SnapshotQueries,
  SnapshotSelection,
  SortedPlace,
} from "./snapshot-queries.ts";
import { bodyText, wholeBodyText } from "./snapshot-rows.ts";

/*
 * Readers of snapshots. Of the rows that make up a tick, nearly all are open, and their indexes answer; those that later ticks
 * closed are found by shard and end, and are few unless the tick is long past. So each question is asked of both sets
 * apart: a condition that says "or" would be answered from no index.
 */

/** How long PostgreSQL may work at a question of a person's, ms. */
export const searchTimeoutMs = 2_000;

/** Bytes of bodies, as they are stored, that one answer holds beyond its first. */
const bodiesMaxBytes = 2 * 1024 * 1024;

export interface QueryPools {
  readonly reads: Pool;
  readonly search: Pool;
  readonly entityShards: number;
}

/** Questions to one database: what a person's filter is in goes by `search`. */
export function createSnapshotQueries({ reads, search, entityShards }: QueryPools): SnapshotQueries {
  const shards = `{${Array.from({ length: entityShards }, (_, shard) => shard).join(",")}}`;
  return {
    finishedRun: (at) => findFinishedRun(reads, at),
    listSnapshots: (request) => listSnapshots(search, shards, request),
    snapshotBodies: (places) => readBodies(reads, places),
    countSnapshots: (request) => countSnapshots(search, shards, request),
    distinctValues: (request) => distinctValues(search, shards, request),
    snapshotSpans: (key, request) => readSpans(reads, key, request),
    spanMoments: (spans, request) => readMoments(reads, spans, request),
    snapshotPage: (request) => readSnapshotPage(reads, request),
  };
}

/** See {@link SnapshotQueries.finishedRun}. */
async function findFinishedRun(reads: Pool, instant: SnapshotInstant): Promise<FinishedRun | null> {
  const tick = instant !== null && "tick" in instant ? String(instant.tick) : null;
  const at = instant !== null && "at" in instant ? String(instant.at) : null;
  const text = `select tick::float8 as tick, starling.to_ms_1(at) as at from starling.snapshot_run
    where status = 'finished' and ($1::text is null or tick <= $1::text::int8)
      and ($2::text is null or at <= to_timestamp($2::text::float8 / 1000))
    order by tick desc limit 1`;
  const [run] = await reads.query<FinishedRun>(text, [tick, at]);
  return run ?? null;
}

interface PlaceRow {
  readonly shard: number;
  readonly type: string;
  readonly eid: string;
  readonly from: number;
}

/** See {@link SnapshotQueries.listSnapshots}. */
async function listSnapshots(search: Pool, shards: string, request: ListSnapshots): Promise<SortedPlace[]> {
  const { text, parameters } = listStatement(shards, request);
  const found = await ask<PlaceRow & { readonly keys: string }>(search, text, parameters);
  return found.map((row) => ({ ...toPlace(row), keys: (JSON.parse(row.keys) as (string | null)[]).slice(1) }));
}

/** The statement of a list; `shards`: all of them, as PostgreSQL writes lists. */
export function listStatement(shards: string, request: ListSnapshots): Statement {
  const { sort, skip, limit, filter } = request;
  const parameters = createParameters();
  const sorted = sort.map((one, i) => ({ text: sortKeyText(one, parameters), name: `k${i}`, one }));
  const end = `${parameters.add(skip + limit)}::int8`;
  const columns = sorted.map(({ text, name }) => `, ${text} as ${name}`).join("");
  const order = (keys: readonly string[], eid: string): string =>
    [...keys.map((key, i) => `${key}${directionOf(sort[i])}`), `${eid}${lastOf(sort)}`].join(", ");
  const rows = (open: boolean) => `(select s.shard, s.type, s.eid, s.from_tick${columns} from starling.snapshot s
    where ${tickText(request, open ? null : shards, parameters)} and ${conditionText(filter, parameters)}
    order by ${order(
      sorted.map(({ text }) => text),
      "s.eid",
    )} limit ${end})`;
  const texts = sorted.map(({ name, one }) => `, ${keyAsText(one, name)}`).join("");
  const text = `select shard, type, eid, from_tick::float8 as "from", array_to_json(array[null${texts}])::text as keys
    from (${rows(true)} union all ${rows(false)}) r
    order by ${order(
      sorted.map(({ name }) => name),
      "eid",
    )}
    offset ${parameters.add(skip)}::int8 limit ${parameters.add(limit)}::int8`;
  return { text, parameters: parameters.values };
}

/** Text and parameters of a statement. */
export interface Statement {
  readonly text: string;
  readonly parameters: readonly Parameter[];
}

/** See {@link SnapshotQueries.snapshotBodies}. */
async function readBodies(reads: Pool, places: readonly SnapshotPlace[]): Promise<(string | null | undefined)[]> {
  if (places.length === 0) return [];
  const row = (end: string) => `select s.body, s.confidences, s.from_tick from starling.snapshot s
    where s.shard = p.shard and s.eid = p.eid and s.type = p.type and s.to_tick ${end}`;
  const text = `select i, case when place = 1 or bytes <= ${bodiesMaxBytes} then ${wholeBodyText("b")}::text end as body from (
    select p.i, s.body, s.confidences, row_number() over w as place, sum(pg_column_size(s.body)) over w as bytes
      from jsonb_to_recordset($1::text::jsonb) p(i int, shard int, type text, eid text, "from" int8)
      cross join lateral (
        ${row("is null")} union all (${row(`> p."from" order by s.to_tick limit 1`)})
      ) s where s.from_tick = p."from"
      window w as (order by p.i rows unbounded preceding)
    ) b`;
  const asked = places.map(({ shard, type, eid, from }, i) => ({ i, shard, type, eid, from }));
  const found = await reads.query<{ i: number; body: string | null }>(text, [JSON.stringify(asked)]);
  const bodies = new Map(found.map(({ i, body }) => [i, body]));
  return places.map((_, i) => bodies.get(i));
}

/** See {@link SnapshotQueries.countSnapshots}. */
async function countSnapshots(search: Pool, shards: string, request: SnapshotSelection): Promise<number> {
  const parameters = createParameters();
  const count = (open: boolean) => `(select count(*) from starling.snapshot s
    where ${tickText(request, open ? null : shards, parameters)} and ${conditionText(request.filter, parameters)})`;
  const [row] = await ask<{ n: number }>(
    search,
    `select (${count(true)} + ${count(false)})::float8 as n`,
    parameters.values,
  );
  return row?.n ?? 0;
}

/** See {@link SnapshotQueries.distinctValues}. */
async function distinctValues(search: Pool, shards: string, request: DistinctSnapshots): Promise<DistinctValue[]> {
  const parameters = createParameters();
  const values = (open: boolean) => `select ${valuesText(request.path, parameters)} as v from starling.snapshot s
    where ${tickText(request, open ? null : shards, parameters)} and ${conditionText(request.filter, parameters)}`;
  const { many, link } = request.path.key;
  const eid = link ? " -> 'eid'" : "";
  const each = `select e.v${eid} as v from r cross join lateral jsonb_array_elements(
    case jsonb_typeof(r.v) when 'array' then r.v else jsonb_build_array(r.v) end) e(v)`;
  const text = `with r as (${values(true)} union all ${values(false)})
    select v::text as value, count(*)::float8 as count from (${many ? each : `select v${eid} as v from r`}) u
    where v is not null and v <> 'null' group by v order by count(*) desc, v limit ${parameters.add(request.limit)}::int8`;
  return await ask<DistinctValue>(search, text, parameters.values);
}

/** See {@link SnapshotQueries.snapshotPage}. */
async function readSnapshotPage(reads: Pool, request: SnapshotPage): Promise<SnapshotPlace[]> {
  const { shard, type, tick, after, limit } = request;
  const rows = (end: string) => `(select s.shard, s.type, s.eid, s.from_tick from starling.snapshot s
    where s.shard = $1 and (s.eid, s.type) > ($2, $3) and s.from_tick <= $4::text::int8
      and s.to_tick ${end} and ($5::text is null or s.type = $5)
    order by s.eid, s.type limit $6)`;
  const text = `select shard, type, eid, from_tick::float8 as "from"
    from (${rows("is null")} union all ${rows("> $4::text::int8")}) s order by eid, type limit $6`;
  const found = await reads.query<PlaceRow>(text, [shard, after.eid, after.type, String(tick), type, limit]);
  return found.map(toPlace);
}

/** The rows of a type that make up a tick: those that are open (null), or those that a later one closed, in all shards. */
function tickText({ type, tick }: SnapshotSelection, shards: string | null, parameters: SqlParameters): string {
  const at = `${parameters.add(String(tick))}::text::int8`;
  const end =
    shards === null
      ? "s.to_tick is null"
      : `s.to_tick > ${at} and s.shard = any(${parameters.add(shards)}::text::int[])`;
  return `s.type = ${parameters.add(type)}::text and s.from_tick <= ${at} and ${end}`;
}

function valuesText({ attr, key }: SnapshotSort, parameters: SqlParameters): string {
  if (attr === null) return `to_jsonb(${key.kind === "number" ? eidKeyText(key.kind, "s.eid") : "s.eid"})`;
  return memberPlace(bodyText("s", attr), { link: false }, `${parameters.add(attr)}::text`).json;
}

/** Where an id's own text is the key, no word of nulls: its index has the other order of them, and there are none. */
function directionOf(sort: SnapshotSort | undefined): string {
  const isEid = sort !== undefined && sort.attr === null && eidKeyText(sort.key.kind, "eid") === "eid";
  if (isEid) return sort.descending ? " desc" : " asc";
  return sort?.descending === true ? " desc nulls last" : " asc nulls first";
}

/** Ties follow the direction of the last key, as its index does. */
function lastOf(sort: readonly SnapshotSort[]): string {
  return sort.at(-1)?.descending === true ? " desc" : " asc";
}

/** Keys as texts that can be compared elsewhere. */
function keyAsText(sort: SnapshotSort, key: string): string {
  return sort.key.kind === "address" ? `encode(inet_send(${key}), 'hex')` : `${key}::text`;
}

function toPlace({ shard, type, eid, from }: PlaceRow): SnapshotPlace {
  return { shard: toShardId(shard), type, eid, from };
}

/** Asks a question that holds what a person wrote. */
async function ask<Row extends object>(search: Pool, text: string, parameters: readonly Parameter[]): Promise<Row[]> {
  try {
    return await search.query<Row>(text, parameters);
  } catch (error) {
    throw translate(error);
  }
}

function translate(error: unknown): unknown {
  if (!(error instanceof StarlingError)) return error;
  if (codeOf(error) === "57014") {
    const text = `PostgreSQL gave the question up after ${searchTimeoutMs / 1000} s`;
    return new StarlingError("TOO_SLOW", text, { cause: error });
  }
  if (error.code !== "STORE_REFUSED") return error;
  return new StarlingError("INVALID_FILTER", `PostgreSQL refuses it: ${error.message}`, { cause: error });
}
