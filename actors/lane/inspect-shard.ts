import type { Clock } from "../../proto/clock.ts";
import type { EntityExplanation, ShardWait } from "../../proto/cluster-status.ts";
import type { ShardId } from "../../proto/ids.ts";
import { reportShard, type ShardInspection } from "../node-report.ts";
import { findFullBound } from "./admission.ts";
import { type Entry, isSettled } from "./entry.ts";
import type { Lane } from "./lane.ts";
import type { Obligation } from "./obligation.ts";
import type { HandOff, Shard } from "./shard.ts";

export interface InspectOptions {
  readonly entity: { readonly type: string; readonly eid: string } | null;
  /** Shards whose log is being read. */
  readonly arriving: readonly ShardId[];
  readonly clock: Clock;
}

/** What a node knows of a shard and of an entity in it; null: the shard is not here. */
export function inspectShard(lane: Lane, id: ShardId, options: InspectOptions): ShardInspection | null {
  const { entity, arriving, clock } = options;
  const shard = lane.shards.get(id);
  if (shard === undefined) {
    if (!arriving.includes(id)) return null;
    return { report: null, waits: [waitFor("arrival", "its log is read by its new owner", null)], entity: null };
  }
  const now = clock.now();
  return {
    report: reportShard(shard),
    waits: findWaits(lane, shard, now),
    entity: entity === null ? null : explainEntity(lane, shard, entity, now),
  };
}

/** What a shard that is here waits for, longest first; what has no known beginning stands last. Looks, and changes nothing. */
export function findWaits(lane: Lane, shard: Shard, now: number): ShardWait[] {
  const waits = [
    ...waitOfHandOff(shard.handOff, now),
    ...waitsOfRecovery(lane, shard),
    ...waitsOfStore(lane, shard, now),
    ...waitsOfOutbox(shard, now),
    ...[...shard.obligations].map((obligation) => waitOfObligation(obligation, now)),
    ...openEntries(shard)
      .filter(({ obligation }) => obligation === null)
      .flatMap((entry) => waitsOfHook(entry, now)),
    ...waitsOfBound(lane, shard),
  ];
  return waits.sort((a, b) => (b.forMs ?? -1) - (a.forMs ?? -1));
}

/** What an entity of a shard that is here does, and what its mailbox waits for. */
export function explainEntity(
  lane: Lane,
  shard: Shard,
  { type, eid }: { readonly type: string; readonly eid: string },
  now: number,
): EntityExplanation {
  const spec = lane.world.model.entities.get(type);
  const entity = spec && shard.entities[spec.index]?.get(eid);
  if (entity === undefined) {
    const nothing = { exists: false, applied: 0, flushed: true, mailbox: 0, waits: [] };
    return { type, eid, resident: false, ...nothing };
  }
  const { mailbox, obligation, status, exists, applied, dirtySeq, flushed } = entity;
  const waits = obligation === null ? [] : [waitOfObligation(obligation, now)];
  if (status === "loading") waits.push(waitFor("load", "its record is read from PostgreSQL", null));
  const [first] = mailbox ?? [];
  if (first !== undefined && first.obligation === null) waits.push(...waitsOfHook(first, now), ...waitsOfAnswer(first));
  return {
    ...{ type, eid, exists, applied, waits },
    resident: status === "resident",
    flushed: dirtySeq === 0 && flushed >= applied,
    mailbox: mailbox?.length ?? 0,
  };
}

/** A wait of the whole shard. */
export function waitFor(kind: string, what: string, forMs: number | null): ShardWait {
  return { kind, what, type: "", eid: "", hook: "", seq: 0, ...(forMs !== null && { forMs: Math.round(forMs) }) };
}

function openEntries({ open, firstOpen }: Shard): Entry[] {
  return open.slice(firstOpen).filter((entry) => !isSettled(entry));
}

function waitOfHandOff(handOff: HandOff | null, now: number): ShardWait[] {
  if (handOff === null) return [];
  const { status, toDrain, running, since } = handOff;
  const hooks = running.filter((entry) => entry.running !== null).length;
  const sealed = hooks > 0 ? `${hooks} hooks that still run may answer` : "its last append is on its way";
  const what = {
    draining: `it is handed over: ${toDrain} changed entities are written first, and it is served meanwhile`,
    sealed: `it is handed over: ${sealed}`,
    flushing: "it is handed over: the last changes are written",
  }[status];
  return [waitFor("hand-off", what, now - since)];
}

function waitsOfRecovery(lane: Lane, shard: Shard): ShardWait[] {
  const replayed = openEntries(shard).filter((entry) => entry.replayed).length;
  const waits: ShardWait[] = [];
  if (replayed > 0) waits.push(waitFor("replay", `${replayed} tasks of the owner before are processed again`, null));
  if (lane.gate !== null && shard.handOff === null && Number.isFinite(shard.openTo)) {
    const to = lane.gate.windows.get(shard)?.to;
    const now = to === undefined ? "it is another shard's turn" : `now up to seq ${to}`;
    const what = `the owner before died: hooks run window by window, ${now}`;
    waits.push(waitFor("window", what, null));
  }
  return waits;
}

function waitsOfStore({ commit, flush, pace }: Lane, shard: Shard, now: number): ShardWait[] {
  const waits: ShardWait[] = [];
  if (shard.keptBack !== null) {
    const what = `PostgreSQL refuses what it has to write (${shard.keptBack.error.message}): its next owner tries again`;
    waits.push(waitFor("flush", what, null));
  }
  if (shard.blocks.length > 0) waits.push(waitFor("append", `${shard.blocks.length} blocks for the next append`, null));
  if (commit !== null && commit.attempts > 0 && commit.built.some((built) => built.shard === shard))
    waits.push(
      waitFor("append", `PostgreSQL did not take an append, tried ${commit.attempts + 1} times`, now - pace.begunAt),
    );
  if (flush !== null && flush.attempts > 0)
    waits.push(
      waitFor("flush", `PostgreSQL did not take a flush, tried ${flush.attempts + 1} times`, now - flush.startedAt),
    );
  const loading = openEntries(shard).filter(({ entity }) => entity?.status === "loading").length;
  if (loading > 0) waits.push(waitFor("load", `records of ${loading} tasks are read from PostgreSQL`, null));
  return waits;
}

function waitsOfOutbox({ outbox }: Shard, now: number): ShardWait[] {
  const byTarget = new Map<ShardId, { lines: number; tasks: number; since: number }>();
  for (const { target, tasks, since } of outbox.undone.values()) {
    const known = byTarget.get(target) ?? { lines: 0, tasks: 0, since };
    byTarget.set(target, {
      lines: known.lines + 1,
      tasks: known.tasks + tasks,
      since: Math.min(known.since, since),
    });
  }
  return [...byTarget].map(([target, { tasks, since }]) =>
    waitFor("outbox", `${tasks} derived tasks for shard ${target} are not done there`, now - since),
  );
}

function waitOfObligation({ entity, entries, held }: Obligation, now: number): ShardWait {
  const [first] = entries;
  const running = first?.running ?? null;
  const behind = Math.max(0, entries.length - 1);
  const hook = running?.hook.id ?? held?.hook ?? "";
  const what = `an obligation: ${hook === "" ? "a task of the entity" : `the hook ${hook}`} takes long, ${behind} tasks wait behind it`;
  const since = running === null ? null : now - running.since;
  return { ...waitFor("obligation", what, since), type: entity.spec.id, eid: entity.eid, hook, seq: first?.seq ?? 0 };
}

function waitsOfHook({ running, entity, seq }: Entry, now: number): ShardWait[] {
  if (running === null || entity === null) return [];
  const { id } = running.hook;
  const wait = waitFor("hook", `the hook ${id} runs`, now - running.since);
  return [{ ...wait, type: entity.spec.id, eid: entity.eid, hook: id, seq }];
}

function waitsOfAnswer({ unrecorded, phase, running, seq }: Entry): ShardWait[] {
  if (running !== null) return [];
  if (unrecorded > 0) return [{ ...waitFor("append", "what a hook answered is on its way into the log", null), seq }];
  if (phase === "ended") return [];
  return [{ ...waitFor("window", `its task is at phase ${phase}, and no hook may begin just now`, null), seq }];
}

function waitsOfBound(lane: Lane, shard: Shard): ShardWait[] {
  const full = findFullBound(lane, shard);
  return full === null ? [] : [waitFor("bound", `${full}: senders wait`, null)];
}
