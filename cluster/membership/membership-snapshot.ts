import type { NodeId, ShardGroup, ShardId } from "../../proto/ids.ts";
import { StarlingError, toStarlingError } from "../../proto/starling-error.ts";
import type { KeyValue, LeaseId, Listing } from "../coordinator.ts";
import type { NodeRecord } from "./membership.ts";
import type { MembershipKeys } from "./membership-keys.ts";
import { parseNodeRecord } from "./node-record.ts";

/** What the coordinator said about a cluster, as of one revision. */
export interface Snapshot {
  readonly revision: number;
  /** Who holds which name. */
  readonly holders: ReadonlyMap<string, Holder>;
  readonly suspicions: readonly PublishedSuspicion[];
  /** Nodes that were given up, or left, and why. */
  readonly dead: ReadonlyMap<NodeId, string>;
  readonly pins: ReadonlyMap<ShardId, string>;
  readonly weights: ReadonlyMap<ShardGroup, ReadonlyMap<string, number>>;
  /** What could not be read, and counts for nothing. */
  readonly problems: readonly UnreadableKey[];
}

/** A record as it was published. */
export interface Holder {
  /** Null: it cannot be read, but its name is taken all the same. */
  readonly record: NodeRecord | null;
  readonly value: string;
  readonly revision: number;
  readonly lease: LeaseId | null;
}

export interface PublishedSuspicion {
  readonly key: string;
  readonly suspect: NodeId;
  readonly by: NodeId;
  readonly revision: number;
}

export interface UnreadableKey {
  readonly key: string;
  readonly revision: number;
  readonly problem: StarlingError;
}

/** Reads a list of everything under the cluster's prefix. Never throws. */
export function readSnapshot(keys: MembershipKeys, { entries, revision }: Listing): Snapshot {
  const draft: Draft = {
    revision,
    holders: new Map(),
    suspicions: [],
    dead: new Map(),
    pins: new Map(),
    weights: new Map(),
    problems: [],
  };
  // In the order in which they were written: of several marks of one name the last one tells.
  for (const entry of [...entries].sort((a, b) => a.revision - b.revision)) {
    try {
      readEntry(draft, keys, entry);
    } catch (error) {
      const problem = toStarlingError(error, "INVALID_ARGUMENT");
      draft.problems.push({ key: entry.key, revision: entry.revision, problem });
    }
  }
  return draft;
}

/** What a mark of death says. `reason` is for people. */
export function writeDeath(name: string, reason: string, by: NodeId): string {
  return JSON.stringify({ name, reason, by });
}

/** The name and the reason that a mark of death tells; one that cannot be read has no name. */
export function readDeath(mark: string): [name: string, reason: string] {
  try {
    const { name, reason } = JSON.parse(mark) as { readonly name?: unknown; readonly reason?: unknown };
    return [String(name ?? ""), String(reason ?? "")];
  } catch {
    return ["", mark]; // for people only: nothing depends on it
  }
}

interface Draft extends Snapshot {
  readonly holders: Map<string, Holder>;
  readonly suspicions: PublishedSuspicion[];
  readonly dead: Map<NodeId, string>;
  readonly pins: Map<ShardId, string>;
  readonly weights: Map<ShardGroup, Map<string, number>>;
  readonly problems: UnreadableKey[];
}

function readEntry(draft: Draft, keys: MembershipKeys, { key, value, revision, lease }: KeyValue): void {
  const parsed = keys.parse(key);
  if (parsed === null) return;
  if (parsed.kind === "node") {
    draft.holders.set(parsed.name, { record: null, value, revision, lease });
    draft.holders.set(parsed.name, { record: parseRecordOf(parsed.name, value), value, revision, lease });
  } else if (parsed.kind === "suspect") {
    draft.suspicions.push({ key, suspect: parsed.suspect, by: parsed.by, revision });
  } else if (parsed.kind === "dead") {
    draft.dead.set(parsed.id, value);
  } else if (parsed.kind === "pin") {
    draft.pins.set(parsed.shard, value);
  } else {
    const weights = draft.weights.get(parsed.group) ?? new Map<string, number>();
    draft.weights.set(parsed.group, weights.set(parsed.name, parseWeight(value)));
  }
}

function parseRecordOf(name: string, value: string): NodeRecord {
  const record = parseNodeRecord(value);
  if (record.name === name) return record;
  throw new StarlingError("INVALID_ARGUMENT", `the record of node ${name} says that it is ${record.name}`);
}

function parseWeight(value: string): number {
  const weight = Number(value);
  if (value.trim() !== "" && Number.isFinite(weight) && weight >= 0) return weight;
  throw new StarlingError("INVALID_ARGUMENT", `the weight ${value} is no number from 0`);
}
