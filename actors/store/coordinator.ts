import type { Pool } from "./connection.ts";

const key = "coordinator";

/**
 * The coordinator that the cluster's nodes meet at stands in the database: an etcd that lost its data, or another one, must
 * not make a second cluster of its own beside the first (R22). Returns the one that stands; null: none does, and none was given.
 */
export async function keepCoordinator(control: Pool, identity: string | null): Promise<string | null> {
  if (identity !== null) {
    await control.query("insert into starling.meta values ($1, $2) on conflict do nothing", [key, identity]);
  }
  const [row] = await control.query<{ value: string }>("select value from starling.meta where key = $1", [key]);
  return row?.value ?? null;
}

/** From now on another one stands, and counts its revisions from the beginning. */
export async function adoptCoordinator(control: Pool, identity: string): Promise<void> {
  const text = `with newest as (delete from starling.membership)
    insert into starling.meta values ($1, $2) on conflict (key) do update set value = excluded.value`;
  await control.query(text, [key, identity]);
}
