import type { CheckedDatapoint } from "../../modules/datapoint.ts";
import { historyRuleOf } from "../history/history-rule.ts";
import { applyTtl, type Entity } from "../lane/entity.ts";
import type { Entry } from "../lane/entry.ts";
import type { Lane } from "../lane/lane.ts";
import type { PartTask } from "../lane/part.ts";
import type { Expire } from "../links/link-change.ts";

/**
 * How long entities of a type with lifetime `ttl` live: as long as one of their tokens says, each of which only grows
 * (reference 9.1). The token `base` is set at the creation, `data` by datapoints, others by whoever wants to. Weak entities live
 * as long as something links to them, which the collector knows (`weak-collector.ts`).
 *
 *  L1  Whether a life is over is decided in the log's order, by the arrival time of an entry that the collector sends
 *      (`collector.ts`): what extended it before, also in memory alone, counts; what comes later finds a new life.
 *  L2  PostgreSQL keeps one time for each such entity, written with its record: when the collector has to look. It is never
 *      later than the end of the life was when it was written, and earlier than that of now: tokens grow without a write, and
 *      whoever is looked at too early says when to look next.
 */
export const baseToken = "base";
export const dataToken = "data";

/** Begins the life of an entity that was created at `at`, Unix ms. */
export function beginLife(entity: Entity, at: number): void {
  const { lifetime } = entity.spec;
  if (lifetime.type === "ttl") extendLife(entity, { [baseToken]: at + lifetime.onCreateMs });
}

/** Extends the life of an entity by what a task brings. `at`: its arrival time. */
export function prolongLife(entity: Entity, { datapoints, ttlTokens }: PartTask, at: number): void {
  if (ttlTokens !== null) extendLife(entity, ttlTokens);
  if (entity.spec.lifetime.type !== "ttl") return;
  const { mirrorData } = entity.spec.lifetime;
  let end = Number.NEGATIVE_INFINITY;
  for (const datapoint of datapoints) end = Math.max(end, endOf(datapoint, mirrorData, at));
  if (end > Number.NEGATIVE_INFINITY) extendLife(entity, { [dataToken]: end });
}

/** Whether the collector's entry finds the life of its entity over: then it goes on as a deletion. */
export function endsLife({ world }: Lane, entity: Entity, entry: Entry, task: PartTask): boolean {
  if (task.link?.kind !== "expire" || !isLifeOver(entity, entry.at, task.link)) return false;
  entry.task = { ...task, link: null, delete: true };
  world.counters.add("lives_over");
  return true;
}

/** Drops the tokens that are over at an instant, of which the entity has a later one; and notes when to look next. */
export function dropTokens(entity: Entity, at: number): boolean {
  if (!entity.exists || entity.spec.lifetime.type !== "ttl" || entity.ttlTokens === null) return false;
  entity.ttlTokens = Object.fromEntries(Object.entries(entity.ttlTokens).filter(([, end]) => end >= at));
  entity.looks = "changed";
  return true;
}

/** What a flush has to write of when the collector has to look at an entity: Unix ms; null: never. Undefined: nothing. */
export function takeLookAt(entity: Entity): number | null | undefined {
  if (entity.looks === "stored") return undefined;
  entity.looks = "stored";
  return entity.tombstone || entity.ttlTokens === null ? null : Math.max(...Object.values(entity.ttlTokens));
}

/** Whether it is over at an instant, Unix ms; that of an entity that has a time to live, but no tokens, goes on for ever. */
function isLifeOver({ spec, exists, applied, ttlTokens }: Entity, at: number, { since }: Expire): boolean {
  if (!exists) return false;
  if (spec.lifetime.type === "weak") return since !== null && applied <= since;
  if (spec.lifetime.type !== "ttl" || ttlTokens === null) return false;
  for (const end of Object.values(ttlTokens)) if (end >= at) return false;
  return true;
}

function extendLife(entity: Entity, tokens: Readonly<Record<string, number>>): void {
  if (entity.ttlTokens === null && entity.spec.lifetime.type === "ttl") entity.looks = "changed";
  applyTtl(entity, tokens);
}

/** Until when a datapoint keeps its entity alive. */
function endOf({ spec, t1, t2 }: CheckedDatapoint, mirrorData: boolean, at: number): number {
  const ttlMs = spec.ttlMs;
  if (spec.kind === "plain") return ttlMs > 0 ? at + ttlMs : Number.NEGATIVE_INFINITY;
  const { maxAgeMs } = historyRuleOf(spec);
  const keptMs = mirrorData && maxAgeMs !== null ? Math.max(ttlMs, maxAgeMs) : ttlMs;
  return keptMs > 0 ? (t2 ?? t1 ?? at) + keptMs : Number.NEGATIVE_INFINITY;
}
