import {
  groupOf,
  type NodeId,
  type ShardGroup,
  type ShardId,
  shardGroups,
  toNodeId,
  toShardId,
} from "../../proto/ids.ts";
import { StarlingError } from "../../proto/starling-error.ts";

/** Where membership keeps things in the coordinator. Names and ids are URI-encoded, so none can reach into another's keys. */
export interface MembershipKeys {
  /** Ends in a slash. All keys begin with it. */
  readonly prefix: string;
  /** A node's record, under the node's lease. */
  node(name: string): string;
  /** That `by` suspects `suspect`, under the lease of `by`. */
  suspect(suspect: NodeId, by: NodeId): string;
  /** That a node was given up, or left: it never returns under this id. */
  dead(id: NodeId): string;
  /** Where a person wants a shard to be: the name of a node. */
  pin(shard: ShardId): string;
  /** A node's share of a group's shards: a number, from 0. */
  weight(group: ShardGroup, name: string): string;
  /** What a key is; null: nothing of membership's. Raises INVALID_ARGUMENT for a key that is malformed. */
  parse(key: string): MembershipKey | null;
}

export type MembershipKey =
  | { readonly kind: "node"; readonly name: string }
  | { readonly kind: "suspect"; readonly suspect: NodeId; readonly by: NodeId }
  | { readonly kind: "dead"; readonly id: NodeId }
  | { readonly kind: "pin"; readonly shard: ShardId }
  | { readonly kind: "weight"; readonly group: ShardGroup; readonly name: string };

/** The keys under a prefix, which is that of one cluster. */
export function createMembershipKeys(prefix: string): MembershipKeys {
  const root = prefix.endsWith("/") ? prefix : `${prefix}/`;
  const join = (...parts: readonly string[]): string => root + parts.map(encodeURIComponent).join("/");
  return {
    prefix: root,
    node: (name) => join("node", name),
    suspect: (suspect, by) => join("suspect", suspect, by),
    dead: (id) => join("dead", id),
    pin: (shard) => join("pin", String(shard)),
    weight: (group, name) => join("weight", group, name),
    parse: (key) => parseKey(key.slice(root.length)),
  };
}

function parseKey(path: string): MembershipKey | null {
  const [kind = "", first = "", second = "", ...more] = path.split("/").map(decode);
  const parts = second === "" ? 1 : 2;
  if (more.length > 0 || first === "") return refuseIfOurs(kind, path);
  if (kind === "node" && parts === 1) return { kind, name: first };
  if (kind === "dead" && parts === 1) return { kind, id: toNodeId(first) };
  if (kind === "pin" && parts === 1) return { kind, shard: parseShard(first) };
  if (kind === "suspect" && parts === 2) return { kind, suspect: toNodeId(first), by: toNodeId(second) };
  if (kind === "weight" && parts === 2) return { kind, group: parseGroup(first), name: second };
  return refuseIfOurs(kind, path);
}

/** A later version may keep more here: that is not ours to judge. */
function refuseIfOurs(kind: string, path: string): null {
  if (!["node", "dead", "pin", "suspect", "weight"].includes(kind)) return null;
  throw new StarlingError("INVALID_ARGUMENT", `the key ${path} is malformed`);
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch (cause) {
    throw new StarlingError("INVALID_ARGUMENT", `the key's part ${part} is not URI-encoded`, { cause });
  }
}

function parseShard(text: string): ShardId {
  const shard = toShardId(Number(text));
  if (/^\d{1,9}$/.test(text) && (shard < 4096 || groupOf(shard) !== "entity")) return shard;
  throw new StarlingError("INVALID_ARGUMENT", `${text} is no shard`);
}

function parseGroup(text: string): ShardGroup {
  const group = shardGroups.find((known) => known === text);
  if (group === undefined) throw new StarlingError("INVALID_ARGUMENT", `${text} is no group of shards`);
  return group;
}
