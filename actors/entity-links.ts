import { type Seq, toSeq } from "../proto/ids.ts";
import { appendAnswer, createAnswer } from "./answer-block.ts";
import { type Entity, readAttribute, replaceValue } from "./entity.ts";
import type { Entry } from "./entry.ts";
import type { Lane } from "./lane.ts";
import { type LinkChange, linkTask } from "./link-change.ts";
import { type LinkStep, planLinks, touchesLinks, withoutTarget } from "./link-plan.ts";
import { createLinkRows, type LinkEnd, noteLink } from "./link-rows.ts";
import type { PartTask } from "./part.ts";
import { answerKey, isSealed, type Shard } from "./shard.ts";
import type { StoredLink } from "./store/store.ts";

/**
 * Links of entities (DESIGN R19). A link is state of its source; that it is there is told to its target, by a derived task,
 * so that either end can be asked in its own shard. Both ends are rows (`store/link.ts`), written with the entity's record.
 *
 *  K1  What a task changes in its entity's links is told before the task is applied: it is an answer like a hook's, recorded
 *      once per (cause, hook), and the state changes when it is durable. So no flush holds a link whose telling could be lost,
 *      and a replay before that finds the state from which the same follows.
 *  K2  A target hears of a source's links in the order in which they changed: an outbox keeps the order (R12).
 *  K3  A deletion is told to both sides before it is applied: sources forget their links to the entity, targets that it links
 *      to them. Page by page, each an answer of its own; the rows stay as they are until the last one is durable.
 *  K4  A source that forgets a link says so to the target, as for any other change: what came to the target in between is
 *      undone, also when a later life of it was told.
 *  K5  A target need not exist. It keeps its rows, and a tombstone says up to where they are applied.
 */
export const linkHook = "starling/links";

/** Links of one page of a deletion: what an append and a flush take without notice. */
export const unlinkPage = 400;

/** Whether what the task changes in links has been told; false: that is on its way into the log. */
export function tellLinks(lane: Lane, shard: Shard, entity: Entity, entry: Entry, task: PartTask): boolean {
  if (entry.lastSeq <= entity.applied) return true;
  if (task.delete) return tellDeletion(lane, shard, entity, entry);
  if (!touchesLinks(task)) return true;
  if (entry.unrecorded > 0) return false;
  if (entry.hook > 0 || isTold(shard, entry)) return true;
  const told = stepsOf(lane, entity, task).flatMap((step) => taskOf(lane, entity, step) ?? []);
  if (told.length === 0) return true;
  if (isSealed(shard)) return false;
  entry.hook++;
  tell(lane, shard, entry, linkHook, told);
  return false;
}

/** Applies what a task says of links: the entity's own, and those of others to it. */
export function applyLinks(lane: Lane, entity: Entity, task: PartTask): void {
  const { link } = task;
  if (link && link.kind !== "unlink") {
    const change = link.kind === "refer" ? (link.span ?? "there") : "gone";
    return note(entity, { reverse: true, attr: link.attr, type: link.type, eid: link.eid }, change);
  }
  if (!touchesLinks(task)) return;
  for (const { attr, type, eid, change } of stepsOf(lane, entity, task)) {
    note(entity, { reverse: false, attr, type, eid }, change);
  }
  if (link) forget(lane, entity, link);
}

/** Notes that the entity has no links any more, nor anybody to it. */
export function clearLinks(lane: Lane, entity: Entity): void {
  if (!lane.linkedTypes.has(entity.spec.id)) return;
  entity.links = { ...createLinkRows(), cleared: true };
}

/** A page of what a deleted entity was linked with has been read. */
export function onLinksRead(lane: Lane, shard: Shard, entry: Entry, links: readonly StoredLink[]): "told" | "wait" {
  const { entity } = entry;
  if (!lane.unlinking.delete(entry) || lane.shards.get(shard.id) !== shard || entity === null) return "wait";
  if (isSealed(shard)) return "wait";
  const hook = pageHook(entry);
  entry.hook++;
  if (links.length < unlinkPage) entry.datapoint = lastPage;
  const told = links.flatMap((link) => partingOf(lane, entity, link) ?? []);
  if (told.length === 0) return "told";
  tell(lane, shard, entry, hook, told);
  return "wait";
}

/** The cursor of a deletion that has read its last page. */
const lastPage = 1;

function tellDeletion(lane: Lane, shard: Shard, entity: Entity, entry: Entry): boolean {
  if (!entity.exists || !lane.linkedTypes.has(entity.spec.id)) return true;
  // Rows are read as they are stored, so all have to be.
  if (entry.unrecorded > 0 || lane.unlinking.has(entry) || entity.flushed !== entity.applied) return false;
  while (isTold(shard, entry, pageHook(entry))) entry.hook++;
  if (entry.datapoint === lastPage) return true;
  if (isSealed(shard)) return false;
  lane.unlinking.add(entry);
  lane.effects.push({ kind: "read-links", shard, entity, entry, offset: entry.hook * unlinkPage, delayMs: 0 });
  return false;
}

function pageHook({ hook }: Entry): string {
  return `${linkHook}/${hook}`;
}

function isTold(shard: Shard, { replayed, seq }: Entry, hook = linkHook): boolean {
  return replayed && shard.recorded.answers.has(answerKey(seq, hook));
}

function tell(lane: Lane, shard: Shard, entry: Entry, hook: string, tasks: readonly PartTask[]): void {
  // No deeper than its cause: nothing that user code says comes of it, and what is linked has to be known.
  const depth = Math.max(1, entry.task?.cause?.depth ?? 0);
  const cause: Seq = toSeq(entry.seq);
  appendAnswer(lane, shard, entry, createAnswer(lane, shard, { cause, hook, depth }, tasks), "link_tasks");
}

function stepsOf({ world }: Lane, entity: Entity, task: PartTask): LinkStep[] {
  return planLinks(world.model, entity.spec.attributes, task, (spec) => readAttribute(entity, spec));
}

/** What a target is told. */
function taskOf(
  { world }: Lane,
  { spec, eid: source }: Entity,
  { attr, type, eid, change }: LinkStep,
): PartTask | null {
  const of = { attr, type: spec.id, eid: source };
  const said: LinkChange =
    change === "gone" ? { kind: "unrefer", ...of } : { kind: "refer", ...of, span: change === "there" ? null : change };
  return linkTask(world.model, type, eid, said);
}

/** What the other end of a link is told of a deletion. */
function partingOf({ world }: Lane, { spec, eid }: Entity, { reverse, attr, ...other }: StoredLink): PartTask | null {
  const kind = reverse ? "unlink" : "unrefer";
  return linkTask(world.model, other.type, other.eid, { kind, attr, type: spec.id, eid });
}

function note(entity: Entity, end: LinkEnd, change: LinkStep["change"]): void {
  entity.links ??= createLinkRows();
  noteLink(entity.links, end, change);
}

function forget({ world }: Lane, entity: Entity, { attr, eid }: LinkChange): void {
  const spec = entity.spec.attributes.get(attr);
  const value = spec === undefined ? undefined : readAttribute(entity, spec);
  if (spec === undefined || value === undefined) return;
  const rest = withoutTarget(world.model, spec, value, eid);
  if (rest !== value) replaceValue(entity, spec, rest);
}
