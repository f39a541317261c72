import { createConnection } from "../../actors/store/connection.ts";

/** How many connections PostgreSQL has to a database, looked at again and again; its own is not counted. */
export interface ConnectionCount {
  most(): number;
  last(): number;
  close(): Promise<void>;
}

const everyMs = 250;

/** Begins to count. A look that fails is left out. */
export function countConnections(url: string): ConnectionCount {
  const settings = { application: "count", statementTimeoutMs: 5_000, connectTimeoutMs: 5_000 };
  const connection = createConnection({ url, ...settings });
  let most = 0;
  let last = 0;
  let status: "open" | "closed" = "open";
  const text = `select count(*)::int as n from pg_stat_activity
    where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'`;
  const look = async (): Promise<void> => {
    const rows = await connection.query<{ n: number }>(text).catch(() => []);
    last = rows[0]?.n ?? last;
    most = Math.max(most, last);
    if (status === "open") timer = setTimeout(() => void look(), everyMs);
  };
  let timer = setTimeout(() => void look(), 0);
  return {
    most: () => most,
    last: () => last,
    close: async () => {
      status = "closed";
      clearTimeout(timer);
      await connection.close();
    },
  };
}
