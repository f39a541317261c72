import { readdir } from "node:fs/promises";
import { join } from "node:path";
import type { ClientDatapoint } from "../../proto/client-batch.ts";
import { repository } from "./repository.ts";

/**
 * Databases as earlier steps of the schema left them, one SQL script for each step: tables, functions and what
 * {@link oldDatapoints} and {@link oldUnprocessed} made of them, on a node with {@link oldFlags} and the model of
 * `test/support/node-config`.
 */
export const oldDatabaseFolder: string = join(repository, "test/support/old-database");

/** Steps of which there is a database. */
export async function oldSteps(): Promise<number[]> {
  const names = await readdir(oldDatabaseFolder);
  return names.flatMap((name) => /^step-(\d+)\.sql$/.exec(name)?.slice(1).map(Number) ?? []).sort((a, b) => a - b);
}

/** The script of a step. */
export function oldDatabaseFile(step: number): string {
  return join(oldDatabaseFolder, `step-${step}.sql`);
}

export const oldFlags = ["--entity-shards", "4", "--system-shards", "1", "--lanes", "1"];
export const oldSession = "old-database";

/** Sent as batch 1 of {@link oldSession}, processed and flushed. */
export const oldDatapoints: readonly ClientDatapoint[] = [
  { type: "device", eid: "a", attr: "label", v: "tab\t, line\n, backslash \\ and é", src: "old" },
  { type: "device", eid: "a", attr: "level", v: 7, t1: 1000, t2: 1500, c: 0.5 },
  { type: "device", eid: "a", attr: "level", v: 9, t1: 3000 },
  { type: "device", eid: "a", attr: "near", v: { eid: "b" } },
  { type: "device", eid: "large", attr: "label", v: "long ".repeat(300) },
  // Its hook fails: a dead letter.
  { type: "device", eid: "b", attr: "label", v: "throw" },
  // Its entity is refused.
  { type: "device", eid: "refused-1", attr: "label", v: "no" },
];

/** Sent as batch 2 of it, and logged by a node that died before it flushed anything of it. */
export const oldUnprocessed: readonly ClientDatapoint[] = [
  { type: "device", eid: "a", attr: "level", v: 11, t1: 5000 },
  { type: "device", eid: "c", attr: "label", v: "late" },
];
