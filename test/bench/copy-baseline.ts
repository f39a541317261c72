import type { Bed } from "./bed.ts";
import { type CopyConnection, createCopyMessage, openCopyConnection } from "./copy-connection.ts";
import { encodeCopyRows } from "./copy-rows.ts";
import type { SendPlan } from "./plan.ts";

/**
 * What PostgreSQL alone does with the same datapoints: plain COPY of 5,000 a commit over two connections, the faster of
 * text and binary. Everything is encoded before the clock starts.
 */
export interface CopyBaseline {
  /** Copies everything into an empty table, once in each format. Rows per second. */
  run(): Promise<{ readonly textPerS: number; readonly binaryPerS: number }>;
}

const rowsPerCommit = 5000;
const connections = 2;
const table = `create table baseline (shard int2, seq int8, etype text, eid text, attr text, src text, t1 timestamptz,
  t2 timestamptz, c float4, v jsonb, primary key (shard, seq))`;

/** Encodes the plan's datapoints. */
export function createCopyBaseline(bed: Bed, plan: SendPlan): CopyBaseline {
  const rows = encodeCopyRows(plan, rowsPerCommit);
  const text = rows.text.map((each) => createCopyMessage("baseline", "text", each));
  const binary = rows.binary.map((each) => createCopyMessage("baseline", "binary", each));
  return {
    run: async () => {
      const database = await bed.createDatabase();
      try {
        const textS = await copyAll(bed, database.url, text, rows.count);
        const binaryS = await copyAll(bed, database.url, binary, rows.count);
        return { textPerS: rows.count / textS, binaryPerS: rows.count / binaryS };
      } finally {
        await database.close();
      }
    },
  };
}

/** Seconds. */
async function copyAll(bed: Bed, url: string, messages: readonly Buffer[], count: number): Promise<number> {
  const opened = await Promise.all(Array.from({ length: connections }, () => openCopyConnection(url)));
  try {
    return await bed.withConnection(url, async (connection) => {
      await connection.script(`drop table if exists baseline; ${table}`);
      await connection.script("checkpoint");
      const started = performance.now();
      const queue = [...messages];
      await Promise.all(opened.map((each) => copyFrom(each, queue)));
      const seconds = (performance.now() - started) / 1000;
      const [found] = await connection.query<{ n: number }>("select count(*)::float8 as n from baseline");
      if (found?.n !== count) throw new Error(`the baseline copied ${found?.n} of ${count} rows`);
      return seconds;
    });
  } finally {
    for (const each of opened) each.close();
  }
}

async function copyFrom(connection: CopyConnection, queue: Buffer[]): Promise<void> {
  for (let message = queue.shift(); message !== undefined; message = queue.shift()) await connection.copy(message);
}
