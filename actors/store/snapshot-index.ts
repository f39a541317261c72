import { createHash } from "node:crypto";
import type { EntitySpec, Model } from "../../modules/model.ts";
import { keyOfAttribute, keyOfEid } from "../snapshots/snapshot-key.ts";
import type { Connection } from "./connection.ts";
import { codeOf } from "./postgres-error.ts";
import { clusterLockClass } from "./schema.ts";
import { eidKeyText, keyText, memberPlace } from "./snapshot-condition.ts";

/*
 * Indexes of the open rows of `snapshot`: one for each attribute of each type that snapshots hold, as the model says. With
 * them an equality, a prefix and an order read few rows; a regular expression reads them all. They are ordered as DP³'s
 * lists are, what is missing first, then by eid, so that a page of a long list is read without sorting. Closed rows, the
 * history, stand in none of them. PostgreSQL does not look at the statistics of such partial indexes: each has an object of
 * statistics beside it, without which a frequent value looked as rare as all others.
 */

export const snapshotIndexFunctions = String.raw`
-- Null for what is no address: hooks write what they like. In plpgsql: of an SQL expression the planner would evaluate the
-- branch that fails.
create function starling.snapshot_address_1(p_text text) returns inet language plpgsql immutable strict parallel safe as $$
begin
  return case when pg_input_is_valid(p_text, 'inet') then p_text::inet end;
end
$$;
`;

/**
 * Creates the indexes that the model asks for and drops those of what it no longer has; returns how many changed. Beside them the
 * one of the spans of entities, in the place of the primary key: see `snapshot-rows.ts`.
 */
export async function indexSnapshots(connection: Connection, model: Pick<Model, "entities">): Promise<number> {
  const [lock] = await connection.query<{ free: boolean }>("select pg_try_advisory_lock($1, 3) as free", [
    clusterLockClass,
  ]);
  if (lock?.free !== true) return 0; // Another node is at it.
  try {
    const wanted = [spans, ...indexesOf(model)].map((index): [string, SnapshotIndex] => [nameOf(index), index]);
    const changed = await bringAbout(connection, new Map(wanted));
    await dropKey(connection);
    return changed;
  } finally {
    await connection.query("select pg_advisory_unlock($1, 3)", [clusterLockClass]);
  }
}

const namePrefix = "snapshot/";

/** One index: the text of it, and the expression whose statistics the planner needs to judge it; null: none. */
interface SnapshotIndex {
  readonly text: string;
  readonly key: string | null;
  readonly unique?: boolean;
}

/** Spans of an entity do not overlap: their ends have the order of their beginnings. Of the open one there is none. */
const spans: SnapshotIndex = { text: "(shard, eid, type, to_tick)", key: null, unique: true };

/** Who waits for the table makes everybody else wait: not for long, and the next start tries again. */
async function dropKey(connection: Connection): Promise<void> {
  const [found] = await connection.query<{ key: boolean }>(
    `select exists (select from pg_constraint c where c.conname = 'snapshot_pkey'
      and c.conrelid = 'starling.snapshot'::regclass) as key`,
  );
  if (found?.key !== true) return;
  try {
    await connection.script("set lock_timeout = '2s'; alter table starling.snapshot drop constraint snapshot_pkey;");
  } catch (error) {
    if (codeOf(error) !== lockNotAvailable) throw error;
  } finally {
    await connection.script("reset lock_timeout;");
  }
}

const lockNotAvailable = "55P03";

async function bringAbout(connection: Connection, wanted: ReadonlyMap<string, SnapshotIndex>): Promise<number> {
  const found = await connection.query<{ name: string; valid: boolean }>(
    `select c.relname as name, i.indisvalid as valid from pg_index i join pg_class c on c.oid = i.indexrelid
      where i.indrelid = 'starling.snapshot'::regclass and starts_with(c.relname, $1)`,
    [namePrefix],
  );
  // One that was interrupted is made anew.
  const gone = found.filter(({ name, valid }) => !valid || !wanted.has(name)).map(({ name }) => name);
  const kept = new Set(found.filter(({ valid }) => valid).map(({ name }) => name));
  const fresh = [...wanted].filter(([name]) => !kept.has(name));
  if (gone.length + fresh.length === 0) return 0;
  const [table] = await connection.query<{ empty: boolean }>(
    "select not exists (select from starling.snapshot) as empty",
  );
  // Nobody waits for an empty table; of one with rows, writes go on meanwhile.
  const how = table?.empty === true ? "" : "concurrently";
  const statements = [
    ...gone.flatMap((name) => [
      `drop index ${how} if exists starling."${name}";`,
      `drop statistics if exists starling."${name}";`,
    ]),
    ...fresh.flatMap(([name, { text, key, unique }]) => [
      `create ${unique === true ? "unique " : ""}index ${how} "${name}" on starling.snapshot ${text};`,
      ...(key === null ? [] : [`create statistics if not exists starling."${name}" on ${key} from starling.snapshot;`]),
    ]),
  ];
  if (how === "") await connection.script(statements.join("\n"));
  else for (const statement of statements) await connection.script(statement);
  return gone.length + fresh.length;
}

function nameOf({ text }: SnapshotIndex): string {
  return namePrefix + createHash("sha256").update(text).digest("hex").slice(0, 16);
}

function indexesOf(model: Pick<Model, "entities">): SnapshotIndex[] {
  return [...model.entities.values()].filter(({ snapshot }) => snapshot).flatMap(indexesOfType);
}

function indexesOfType(entity: EntitySpec): SnapshotIndex[] {
  const open = `where type = ${literal(entity.id)} and to_tick is null`;
  const ordered = (key: string): SnapshotIndex => ({ text: `(${key} nulls first, eid) ${open}`, key });
  const eidKey = eidKeyText(keyOfEid(entity).kind, "eid");
  const ofAttributes = entity.attributeList.flatMap((spec) => {
    const key = keyOfAttribute(spec);
    if (key === null || (key.kind === "json" && !key.many)) return [];
    const name = literal(spec.id);
    if (key.many) return [{ text: `using gin ((body -> ${name}) jsonb_path_ops) ${open}`, key: null }];
    return [ordered(keyText(key.kind, memberPlace("body", key, name)))];
  });
  // By their texts there is an index of all types.
  return eidKey === "eid" ? ofAttributes : [ordered(eidKey), ...ofAttributes];
}

function literal(text: string): string {
  return `'${text.replaceAll("'", "''")}'::text`;
}
