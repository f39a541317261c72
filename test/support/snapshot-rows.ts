import { type Connection, createConnection } from "../../actors/store/connection.ts";

/** What runs would have written, put there by SQL. */
export interface SnapshotRows {
  /** A finished run, of the tick's own number of minutes after 2026. */
  run(tick: number, status?: "running" | "finished" | "failed"): Promise<void>;
  /** A row of type and eid that holds from one tick to another (null: to now). */
  row(
    type: string,
    eid: string,
    body: object,
    ticks?: readonly [from: number, to: number | null],
    shard?: number,
  ): Promise<void>;
  /** Anything else. */
  readonly connection: Connection;
  close(): Promise<void>;
}

/** Unix ms of a tick that `run` made. */
export function instantOf(tick: number): number {
  return Date.UTC(2026, 0, 1) + tick * 60_000;
}

export function openSnapshotRows(url: string): SnapshotRows {
  const connection = createConnection({
    url,
    application: "test",
    statementTimeoutMs: 120_000,
    connectTimeoutMs: 5_000,
  });
  return {
    connection,
    run: async (tick, status = "finished") => {
      const text = `insert into starling.snapshot_run
        (tick, at, kind, cause, status, phase, base, fingerprint, started_at, ended_at, counts)
        values ($1, starling.to_time_1($2), 'full', 'demand', $3, 'visit', 0, 'f', starling.to_time_1($2),
          case when $3 <> 'running' then starling.to_time_1($2 + 1000) end, '{"entities": 3}')
        on conflict (tick) do update set status = excluded.status`;
      await connection.query(text, [tick, instantOf(tick), status]);
    },
    row: async (type, eid, body, [from, to] = [1, null], shard = 0) => {
      const text = `insert into starling.snapshot (shard, type, eid, from_tick, to_tick, body, confidences)
        values ($6, $1, $2, $3, $4, $5::text::jsonb, $7::text::jsonb)`;
      const apart = Object.entries(body).filter(([name]) => name.endsWith("#c"));
      const rest = Object.entries(body).filter(([name]) => !name.endsWith("#c"));
      const confidences = apart.length === 0 ? null : JSON.stringify(Object.fromEntries(apart));
      await connection.query(text, [type, eid, from, to, JSON.stringify(Object.fromEntries(rest)), shard, confidences]);
    },
    close: () => connection.close(),
  };
}
