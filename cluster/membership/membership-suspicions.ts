import type { NodeId } from "../../proto/ids.ts";
import type { Death, KnownNode } from "./membership-plan.ts";
import type { Snapshot } from "./membership-snapshot.ts";

/** What one node holds against another one. */
export interface Suspicion {
  /** What is to be said; null: nothing any more, or it was contested and nobody has said it again. */
  readonly reason: string | null;
  /** What was said, and when, by this node's clock at the latest; null: nothing that stands. */
  readonly published: { readonly revision: number; readonly atMs: number } | null;
  /** Nothing is said again before. */
  readonly notBeforeMs: number;
}

export type Suspicions = ReadonlyMap<NodeId, Suspicion>;

export interface SuspicionFacts {
  readonly self: NodeId;
  readonly nodes: ReadonlyMap<NodeId, KnownNode>;
  readonly snapshot: Snapshot;
  readonly nowMs: number;
  /** A suspicion that stands counts no earlier: the suspect may still be finding the way back to the coordinator. */
  readonly notBeforeMs: number;
  /** How long a suspicion has to stand. */
  readonly contestMs: number;
}

export interface SuspicionPlan {
  readonly suspicions: Suspicions;
  readonly publish: readonly NodeId[];
  /** Keys of suspicions of this node's own that are to go. */
  readonly withdraw: readonly string[];
  readonly deaths: readonly Death[];
  /** In how many milliseconds there is something to do; infinity: never. */
  readonly waitMs: number;
}

/** The suspicions after one more was said. */
export function withSuspicion(suspicions: Suspicions, node: NodeId, reason: string): Suspicions {
  const former = suspicions.get(node) ?? { published: null, notBeforeMs: Number.NEGATIVE_INFINITY };
  return new Map(suspicions).set(node, { ...former, reason });
}

/** The suspicions after one was taken back. How soon it may be said again is kept. */
export function withoutSuspicion(suspicions: Suspicions, node: NodeId): Suspicions {
  const former = suspicions.get(node);
  return former === undefined ? suspicions : new Map(suspicions).set(node, { ...former, reason: null });
}

/** The suspicions after one was committed. */
export function withPublished(suspicions: Suspicions, node: NodeId, revision: number, atMs: number): Suspicions {
  const former = suspicions.get(node);
  return former === undefined
    ? suspicions
    : new Map(suspicions).set(node, { ...former, published: { revision, atMs } });
}

/**
 * What to do about the suspicions of one node. One that was published and is gone was contested (or its lease lapsed: it
 * counts as contested): it has to be said again. One that stands without this node knowing is from a commit whose answer
 * was lost: it counts from now. Pure.
 */
export function planSuspicions(suspicions: Suspicions, facts: SuspicionFacts): SuspicionPlan {
  const { self, nodes, snapshot, nowMs, notBeforeMs, contestMs } = facts;
  const own = new Map(snapshot.suspicions.filter(({ by }) => by === self).map((said) => [said.suspect, said]));
  const next = new Map<NodeId, Suspicion>();
  const publish: NodeId[] = [];
  const deaths: Death[] = [];
  let waitMs = Number.POSITIVE_INFINITY;
  for (const [id, former] of suspicions) {
    const name = nodes.get(id)?.record.name;
    if (name === undefined) continue;
    const said = own.get(id);
    const suspicion = settle(former, said?.revision ?? 0, nowMs);
    if (suspicion.reason === null && suspicion.notBeforeMs <= nowMs) continue;
    next.set(id, suspicion);
    if (suspicion.reason === null) continue;
    if (said === undefined || suspicion.published === null) {
      if (suspicion.notBeforeMs > nowMs) waitMs = Math.min(waitMs, suspicion.notBeforeMs - nowMs);
      else publish.push(id);
      continue;
    }
    own.delete(id);
    const leftMs = Math.max(suspicion.published.atMs + contestMs, notBeforeMs) - nowMs;
    if (leftMs > 0) waitMs = Math.min(waitMs, leftMs);
    else deaths.push({ id, name, reason: suspicion.reason, suspicion: { key: said.key, revision: said.revision } });
  }
  for (const id of publish) next.set(id, { ...(next.get(id) ?? nothing), notBeforeMs: nowMs + contestMs });
  return { suspicions: next, publish, withdraw: [...own.values()].map(({ key }) => key), deaths, waitMs };
}

const nothing: Suspicion = { reason: null, published: null, notBeforeMs: 0 };

/** A suspicion as the coordinator has it: at `revision`; 0: not at all. */
function settle(former: Suspicion, revision: number, nowMs: number): Suspicion {
  const { reason, published } = former;
  if (reason === null) return { ...former, published: null };
  if (revision === 0) return published === null ? former : { ...former, reason: null, published: null };
  if (published?.revision === revision) return former;
  return { ...former, published: { revision, atMs: nowMs } };
}
