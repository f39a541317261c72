import type { Connection } from "../../actors/store/connection.ts";
import { shardOf } from "../../proto/shard-of.ts";
import type { Bed } from "./bed.ts";
import type { Benchmark, BenchmarkOptions, Outcome } from "./benchmark.ts";
import { expectThings } from "./expectation.ts";
import { createPlan } from "./plan.ts";
import { shuffled } from "./things.ts";
import { verify } from "./verify.ts";

/** Entities that are stored and not resident get one datapoint each, beside plain SQL that does the same to the rows. */
export const activation: Benchmark = {
  name: "activation",
  summary: "200,000 stored entities, none resident, get one datapoint each, beside batched SQL",
  fields: [
    { key: "activations_per_s", unit: "entities/s", what: "from the first send to the last watermark" },
    { key: "sql_ratio", unit: "", what: "that over rows/s read and upserted by plain SQL" },
  ],
  bounds: () => [{ key: "sql_ratio", sense: "at least", limit: 0.3 }],
  run,
};

const rowsPerBatch = 1000;
const connections = 2;
const numberAttribute = 1;

async function run(bed: Bed, options: BenchmarkOptions): Promise<Outcome> {
  const entities = options.entities ?? 200_000;
  const database = await bed.createDatabase();
  try {
    options.note(`storing ${entities} entities`);
    const first = await bed.startNode({ databaseUrl: database.url });
    const all = createPlan(entities);
    const stored = await bed.send(first, all);
    await bed.stopNode(first);
    options.note("plain SQL");
    const sqlS = await runSql(bed, database.url, entities);
    options.note("activations");
    // A new node has nothing in memory.
    const node = await bed.startNode({ databaseUrl: database.url });
    await bed.checkpoint();
    const one = createPlan(entities, { attributes: [numberAttribute], generation: 2, seed: 4 });
    const report = await bed.send(node, one);
    await bed.stopNode(node);
    const sent = [
      { plan: all, sent: stored.sent },
      { plan: one, sent: report.sent },
    ];
    const verdict = await bed.withConnection(database.url, (connection) => verify(connection, expectThings(sent)));
    const activationsPerS = report.sent / report.processedS;
    const sqlPerS = entities / sqlS;
    return {
      values: { activations_per_s: activationsPerS, sql_ratio: activationsPerS / sqlPerS },
      remarks: [`plain SQL: ${Math.round(sqlPerS)} rows/s`],
      verdicts: [verdict],
    };
  } finally {
    await database.close();
  }
}

/**
 * The same rows in a table of their own with only its primary key: two connections, each reads 1,000 rows by their keys and
 * upserts them with one value changed, in one transaction. Seconds.
 */
async function runSql(bed: Bed, url: string, entities: number): Promise<number> {
  await bed.withConnection(url, async (connection) => {
    await connection.script(`
      create table plain (shard int, type text collate "C", eid text collate "C", applied bigint, state text collate "C",
        primary key (shard, type, eid)) with (fillfactor = 60);
      alter table plain alter state set storage external;
      insert into plain select shard, type, eid, applied, state from starling.entity order by shard, type, eid;
      analyze plain;`);
  });
  await bed.checkpoint();
  const order = shuffled(entities, 4);
  const started = performance.now();
  let next = 0;
  const work = async (connection: Connection): Promise<void> => {
    while (next < entities) {
      const numbers = order.subarray(next, next + rowsPerBatch);
      next += rowsPerBatch;
      await updateRows(connection, numbers);
    }
  };
  await Promise.all(Array.from({ length: connections }, () => bed.withConnection(url, work)));
  const seconds = (performance.now() - started) / 1000;
  await bed.withConnection(url, (connection) => connection.script("drop table plain"));
  return seconds;
}

const readText = `select p.shard, p.eid, p.applied::float8 as applied, p.state
  from (select string_to_array(k, e'\\x1f') from string_to_table($1, e'\\x1e') k offset 0) w(f)
    join plain p on p.shard = f[1]::int and p.type = 'thing' and p.eid = f[2]`;
const upsertText = `insert into plain (shard, type, eid, applied, state)
  select f[1]::int, 'thing', f[2], f[3]::bigint, f[4]
    from (select string_to_array(k, e'\\x1f') from string_to_table($1, e'\\x1e') k offset 0) w(f)
  on conflict (shard, type, eid) do update set applied = excluded.applied, state = excluded.state`;

interface PlainRow {
  readonly shard: number;
  readonly eid: string;
  readonly applied: number;
  readonly state: string;
}

async function updateRows(connection: Connection, numbers: Uint32Array): Promise<void> {
  const keys = Array.from(numbers, (number) => {
    const eid = `thing-${number}`;
    return `${shardOf("entity", "thing", eid, 256)}\x1f${eid}`;
  });
  await connection.script("begin");
  const rows = await connection.query<PlainRow>(readText, [keys.join("\x1e")]);
  if (rows.length !== numbers.length) throw new Error(`plain SQL found ${rows.length} of ${numbers.length} rows`);
  const changed = rows.map(({ shard, eid, applied, state }) => {
    const next = state.replace(/"p_int":\{"v":\d+/, `"p_int":{"v":${applied}`);
    return `${shard}\x1f${eid}\x1f${applied + 1}\x1f${next}`;
  });
  await connection.query(upsertText, [changed.join("\x1e")]);
  await connection.script("commit");
}
