import { createConnection } from "../../actors/store/connection.ts";

const tables = ["raw", "entity", "large_value", "history", "refused", "dead_letter"] as const;

/**
 * Everything that bad input must not change, as text: two equal dumps are equal databases. The log stands for its datapoints:
 * a refused batch takes its number by an entry without any (R9).
 */
export async function dumpDatabase(url: string): Promise<string> {
  const connection = createConnection({
    url,
    application: "dump",
    statementTimeoutMs: 30_000,
    connectTimeoutMs: 10_000,
  });
  try {
    const dump: string[] = [];
    for (const table of tables) {
      const rows = await connection.query<{ row: string }>(`select t::text as row from starling.${table} t order by 1`);
      dump.push(`${table}: ${rows.length}`, ...rows.map(({ row }) => row));
    }
    return dump.join("\n");
  } finally {
    await connection.close();
  }
}
