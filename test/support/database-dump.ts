import type { Connection } from "../../actors/store/connection.ts";

/**
 * What a refused batch changes by its nature: it takes its number by an entry without datapoints (R9), so the `log`
 * grows, its shard's watermark in `progress` and number in `channel` follow, and `flushed` counts the flush that wrote
 * them. For the log stand its datapoints, as the view `raw` shows them.
 */
const leftOut = ["log", "progress", "channel", "flushed"];

/**
 * Everything that bad input must not change, as text, tables yet to come included: equal dumps are equal databases. With
 * nothing left out, all that a node writes.
 */
export async function dumpDatabase(connection: Connection, without: readonly string[] = leftOut): Promise<string> {
  const tables = await connection.query<{ name: string }>(
    `select relname as name from pg_class
      where relnamespace = 'starling'::regnamespace and relkind in ('r', 'p') and not relispartition order by 1`,
  );
  const found = new Set(tables.map(({ name }) => name)); // of several databases each has them
  const names = ["raw", ...[...found].filter((name) => !without.includes(name))];
  const each = names.map((name) => `select '${name}' as name, t::text as row from starling.${name} t`);
  const rows = await connection.query<{ name: string; row: string }>(`${each.join(" union all ")} order by 1, 2`);
  return names
    .flatMap((table) => {
      const own = rows.filter(({ name }) => name === table);
      return [`${table}: ${own.length}`, ...own.map(({ row }) => row)];
    })
    .join("\n");
}
