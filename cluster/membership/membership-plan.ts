/**
 * What follows from a snapshot: pure, so that each rule can be tested alone. Who is there is decided by commits to the
 * coordinator only, so all nodes come to the same view:
 *
 * 1. A node is there from the commit of its record until a commit writes its mark of death or gives its name to another id. A
 *    record that is merely gone says nothing: the coordinator may have been away and every lease lapsed.
 * 2. A record is put only where there is no mark of death for its id: a node returns or is dead, never both.
 * 3. A lapsed node is marked dead by who has been connected for a whole time to live since it last saw the record (R23).
 * 4. A suspected node is marked dead by who suspects it, when the suspicion has stood uncontested for long enough, in a commit
 *    that fails if the suspicion was contested or the node said anything meanwhile.
 * 5. Only a node that is itself there marks another one dead. So two that suspect each other never both die.
 */
import type { NodeId } from "../../proto/ids.ts";
import type { StarlingError } from "../../proto/starling-error.ts";
import type { Condition, LeaseId, Write } from "../coordinator.ts";
import { judgeProtocols } from "../protocol-range.ts";
import type { MembershipView, NodeRecord } from "./membership.ts";
import type { MembershipKeys } from "./membership-keys.ts";
import { readDeath, type Snapshot, writeDeath } from "./membership-snapshot.ts";
import { writeNodeRecord } from "./node-record.ts";

/** Marks of death outlive whatever a node may sleep through. */
export const deadTtlMs = 3_600_000;

/** A node that is there. */
export interface KnownNode {
  readonly record: NodeRecord;
  /** When its record was last seen, by this node's clock. */
  readonly seenAtMs: number;
}

/** Who is there, after a snapshot that was taken at `nowMs` (invariant 1). */
export function planNodes(
  former: ReadonlyMap<NodeId, KnownNode>,
  { holders, dead }: Snapshot,
  nowMs: number,
): Map<NodeId, KnownNode> {
  const next = new Map<NodeId, KnownNode>();
  for (const [id, known] of former) {
    const holder = holders.get(known.record.name);
    if (dead.has(id)) continue;
    if (holder === undefined) next.set(id, known);
    else if (holder.record === null) next.set(id, { record: known.record, seenAtMs: nowMs });
  }
  for (const { record } of holders.values()) {
    if (record !== null && !dead.has(record.id)) next.set(record.id, { record, seenAtMs: nowMs });
  }
  return next;
}

/** What to show of it. */
export function planView(nodes: ReadonlyMap<NodeId, KnownNode>, snapshot: Snapshot): MembershipView {
  const { revision, suspicions, pins, weights } = snapshot;
  const names = new Set([...nodes.values()].map(({ record }) => record.name));
  return {
    revision,
    nodes: [...nodes.values()].map(({ record }) => record).sort((a, b) => (a.name < b.name ? -1 : 1)),
    suspects: new Set(suspicions.map(({ suspect }) => suspect).filter((suspect) => nodes.has(suspect))),
    pins,
    weights,
    departed: new Map([...snapshot.dead.values()].map(readDeath).filter(([name]) => name !== "" && !names.has(name))),
  };
}

/** All of a view but its revision, as text: equal for equal views. */
export function contentOf({ nodes, suspects, pins, weights, departed }: MembershipView): string {
  const flat = [...weights].map(([group, byName]) => [group, [...byName].sort(byKey)]);
  const shown = [
    nodes.map(writeNodeRecord),
    [...suspects].sort(),
    [...pins].sort(([a], [b]) => a - b),
    flat,
    [...departed].sort(),
  ];
  return JSON.stringify(shown);
}

function byKey([a]: readonly [string, number], [b]: readonly [string, number]): number {
  return a < b ? -1 : 1;
}

/** What a node is to do about its own record. */
export type SelfPlan =
  | { readonly kind: "keep"; readonly revision: number }
  /** Put the record, where the name's key is at `revision`. */
  | { readonly kind: "put"; readonly revision: number }
  /** Another node has the name. */
  | { readonly kind: "taken"; readonly by: NodeRecord | null }
  /** A node is there with which this one has no protocol in common: it stays away. */
  | { readonly kind: "foreign"; readonly problem: StarlingError }
  /** Given up by the others, under this id. */
  | { readonly kind: "dead"; readonly reason: string };

/** `lease`: the one that is kept alive; null: there is none. */
export function planSelf(self: NodeRecord, lease: LeaseId | null, { holders, dead }: Snapshot): SelfPlan {
  const mark = dead.get(self.id);
  if (mark !== undefined) return { kind: "dead", reason: mark };
  const holder = holders.get(self.name);
  if (holder === undefined) {
    const problem = findForeign(self, holders);
    return problem === null ? { kind: "put", revision: 0 } : { kind: "foreign", problem };
  }
  if (holder.record?.id !== self.id) return { kind: "taken", by: holder.record };
  const { revision } = holder;
  const current = lease !== null && holder.lease === lease && holder.value === writeNodeRecord(self);
  return { kind: current ? "keep" : "put", revision };
}

function findForeign(self: NodeRecord, holders: Snapshot["holders"]): StarlingError | null {
  for (const { record } of holders.values()) {
    const problem = record && judgeProtocols(self, record);
    if (problem !== null) return problem;
  }
  return null;
}

/** A node to mark dead. */
export interface Death {
  readonly id: NodeId;
  readonly name: string;
  readonly reason: string;
  /** The suspicion that stands uncontested; null: its lease lapsed. */
  readonly suspicion: Condition | null;
}

export interface LapseFacts {
  readonly self: NodeId;
  readonly nodes: ReadonlyMap<NodeId, KnownNode>;
  readonly snapshot: Snapshot;
  readonly nowMs: number;
  /** Since when the coordinator has answered without a gap. */
  readonly connectedSinceMs: number;
  readonly leaseTtlMs: number;
}

/** Whose lease has lapsed for good (invariant 3), and in how many milliseconds the next one will have. */
export function planLapses(facts: LapseFacts): { readonly deaths: readonly Death[]; readonly waitMs: number } {
  const { self, nodes, snapshot, nowMs, connectedSinceMs, leaseTtlMs } = facts;
  const deaths: Death[] = [];
  let waitMs = Number.POSITIVE_INFINITY;
  for (const [id, { record, seenAtMs }] of nodes) {
    if (id === self || snapshot.holders.has(record.name)) continue;
    const leftMs = Math.max(seenAtMs, connectedSinceMs) + leaseTtlMs - nowMs;
    if (leftMs > 0) waitMs = Math.min(waitMs, leftMs);
    else deaths.push({ id, name: record.name, reason: "its lease lapsed", suspicion: null });
  }
  return { deaths, waitMs };
}

/** The commit that marks a node dead; `lease` is the mark's. Invariants 4 and 5 are its conditions. */
export function commitOfDeath(
  keys: MembershipKeys,
  self: NodeRecord,
  snapshot: Snapshot,
  death: Death,
  lease: LeaseId,
): { readonly conditions: readonly Condition[]; readonly writes: readonly Write[] } {
  const { id, name, reason, suspicion } = death;
  const revisionOf = (holder: string): number => snapshot.holders.get(holder)?.revision ?? 0;
  const own = { key: keys.node(self.name), revision: revisionOf(self.name) };
  const conditions = [own, { key: keys.node(name), revision: revisionOf(name) }, { key: keys.dead(id), revision: 0 }];
  const stale = snapshot.suspicions.filter(({ suspect, by }) => suspect === id || by === id).map(({ key }) => key);
  const removed = new Set([keys.node(name), ...stale]);
  const mark: Write = { kind: "put", key: keys.dead(id), value: writeDeath(name, reason, self.id), lease };
  return {
    conditions: suspicion === null ? conditions : [...conditions, suspicion],
    writes: [...[...removed].map((key): Write => ({ kind: "delete", key })), mark],
  };
}
