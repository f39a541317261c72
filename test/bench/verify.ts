import type { Connection } from "../../actors/store/connection.ts";
import { readWhole } from "../../actors/store/load.ts";
import type { EntityKey } from "../../actors/store/store.ts";
import { fieldsOf } from "../support/state-fields.ts";
import type { Expectation, ExpectedAttribute } from "./expectation.ts";

/** What a comparison of the database with what was sent has found. */
export interface Verdict {
  readonly entities: number;
  /** Datapoints of histories that were compared. */
  readonly history: number;
  /** How many differences there are, and the first of them in words. */
  readonly differences: number;
  /** Datapoints by which entities count too few, and too many. */
  readonly lost: number;
  readonly duplicated: number;
  readonly first: readonly string[];
}

const firstMax = 10;
const entitiesPerPage = 5000;
const rowsPerPage = 20_000;

interface Findings {
  entities: number;
  history: number;
  differences: number;
  lost: number;
  duplicated: number;
  readonly first: string[];
}

interface EntityRow extends EntityKey {
  readonly applied: number;
  readonly tombstone: boolean;
  readonly state: string;
}

interface HistoryRow {
  readonly shard: number;
  readonly eid: string;
  readonly seq: number;
  readonly body: string;
}

interface StoredAttribute {
  readonly v: unknown;
  readonly t1: number;
  readonly t2: number;
  readonly c: number;
  readonly n: number;
}

/** Compares every entity's state, value by value, and its stored history with what was sent; and no dead letters. */
export async function verify(connection: Connection, expectation: Expectation): Promise<Verdict> {
  const findings: Findings = { entities: 0, history: 0, differences: 0, lost: 0, duplicated: 0, first: [] };
  const seen = new Uint8Array(expectation.entities);
  const history = createHistoryReader(connection, expectation.type);
  for await (const row of entityRows(connection, expectation.type)) {
    for (const stray of await history.before(row)) report(findings, stray.eid, "has a history and no record");
    const segments = await history.of(row);
    const number = expectation.numberOf(row.eid);
    if (number === null) {
      report(findings, row.eid, "was never sent");
      continue;
    }
    seen[number] = 1;
    findings.entities++;
    compareState(findings, expectation, number, row);
    compareHistory(findings, expectation, number, { row, segments });
  }
  for (const stray of await history.before(null)) report(findings, stray.eid, "has a history and no record");
  for (let number = 0; number < seen.length; number++) {
    const sent = seen[number] === 0 ? expectation.attributesOf(number) : [];
    if (sent.length > 0) report(findings, expectation.eidOf(number), "is missing");
    for (const { count } of sent) findings.lost += count;
  }
  const [letters] = await connection.query<{ n: number }>("select count(*)::float8 as n from starling.dead_letter");
  if (letters !== undefined && letters.n > 0) report(findings, "starling.dead_letter", `has ${letters.n} rows`);
  return findings;
}

function report(findings: Findings, eid: string, what: string): void {
  findings.differences++;
  if (findings.first.length < firstMax) findings.first.push(`${eid} ${what}`);
}

async function* entityRows(connection: Connection, type: string): AsyncGenerator<EntityRow> {
  const text = `select shard, type, eid, applied::float8 as applied, tombstone, state from starling.entity
    where type = $1 and (shard, type, eid) > ($2::int, $1, $3) order by shard, type, eid limit ${entitiesPerPage}`;
  let last = { shard: -1, eid: "" };
  while (true) {
    const rows = await connection.query<EntityRow>(text, [type, last.shard, last.eid]);
    yield* await readWhole(connection, rows);
    const end = rows.at(-1);
    if (end === undefined) return;
    last = end;
  }
}

/** Walks through the histories in the order of the entities. */
function createHistoryReader(connection: Connection, type: string) {
  const text = `select shard, eid, seq::float8 as seq, body from starling.history
    where type = $1 and (shard, type, eid, seq) > ($2::int, $1, $3, $4::bigint)
    order by shard, type, eid, seq limit ${rowsPerPage}`;
  let page: HistoryRow[] = [];
  let at = 0;
  let last: Omit<HistoryRow, "body"> | null = { shard: -1, eid: "", seq: 0 };
  const peek = async (): Promise<HistoryRow | null> => {
    if (at === page.length && last !== null) {
      page = await connection.query<HistoryRow>(text, [type, last.shard, last.eid, last.seq]);
      at = 0;
      last = page.at(-1) ?? null;
    }
    return page[at] ?? null;
  };
  const takeWhile = async (wanted: (row: HistoryRow) => boolean): Promise<HistoryRow[]> => {
    const taken: HistoryRow[] = [];
    for (let row = await peek(); row !== null && wanted(row); row = await peek()) {
      taken.push(row);
      at++;
    }
    return taken;
  };
  return {
    /** Histories of entities that should have come before this one; null: all that are left. */
    before: (row: EntityRow | null) => takeWhile((found) => row === null || isBefore(found, row)),
    of: (row: EntityRow) => takeWhile((found) => found.shard === row.shard && found.eid === row.eid),
  };
}

function isBefore(a: { readonly shard: number; readonly eid: string }, b: EntityRow): boolean {
  return a.shard < b.shard || (a.shard === b.shard && a.eid < b.eid);
}

function compareState(findings: Findings, expectation: Expectation, number: number, row: EntityRow): void {
  if (row.tombstone) report(findings, row.eid, "is deleted");
  const stored = new Map(Object.entries(fieldsOf<StoredAttribute>(row.state)));
  for (const expected of expectation.attributesOf(number)) {
    const found = stored.get(expected.attr);
    stored.delete(expected.attr);
    findings.lost += Math.max(0, expected.count - (found?.n ?? 0));
    findings.duplicated += Math.max(0, (found?.n ?? 0) - expected.count);
    const wrong = found === undefined ? "nothing" : attributeProblem(expected, found);
    if (wrong !== null) report(findings, row.eid, `${expected.attr}: expected ${wanted(expected)}, found ${wrong}`);
  }
  for (const attr of stored.keys()) report(findings, row.eid, `${attr}: was never sent`);
}

function attributeProblem({ json, t1, t2, count }: ExpectedAttribute, found: StoredAttribute): string | null {
  const timesFit = t1 === null ? found.t1 > 0 && found.t2 === found.t1 : found.t1 === t1 && found.t2 === t2;
  if (JSON.stringify(found.v) === json && timesFit && found.c === 1 && found.n === count) return null;
  return JSON.stringify(found);
}

function wanted({ json, t1, t2, count }: ExpectedAttribute): string {
  return `${json} from ${t1 ?? "its arrival"} to ${t2 ?? "its arrival"}, ${count} in all`;
}

function compareHistory(
  findings: Findings,
  expectation: Expectation,
  number: number,
  { row, segments }: { readonly row: EntityRow; readonly segments: readonly HistoryRow[] },
): void {
  const seen = new Set<number>();
  for (const { seq, body } of segments) {
    if (seq > row.applied) report(findings, row.eid, `has history at ${seq}, after its state at ${row.applied}`);
    for (const line of body.split("\n")) {
      findings.history++;
      const [attr = "", src = "", t1 = "", t2 = "", c = "", json = ""] = line.split("\t");
      const expected = expectation.historyAt(number, attr, Number(t1));
      if (expected === null) report(findings, row.eid, `has in its history what was never sent: ${line}`);
      else if (seen.has(expected.ordinal)) report(findings, row.eid, `has twice in its history: ${line}`);
      else if (expected.json !== json || expected.t2 !== Number(t2) || c !== "1" || src !== "bench") {
        report(findings, row.eid, `has in its history ${line}, expected ${expected.json} until ${expected.t2}`);
      }
      if (expected !== null) seen.add(expected.ordinal);
    }
  }
  const missing = expectation.historyLength(number) - seen.size;
  if (missing > 0) report(findings, row.eid, `lacks ${missing} datapoints in its history`);
}
