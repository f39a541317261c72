import type { Epoch, NodeId, ShardId } from "../proto/ids.ts";

/** Who owns a shard, as of an epoch; null: it was given up, and nobody has taken it yet. */
export interface Ownership {
  readonly shard: ShardId;
  readonly epoch: Epoch;
  readonly owner: NodeId | null;
}

/**
 * Owners as this node knows them: read from PostgreSQL, told by other nodes, and by its own acquiring. Later epochs win, so
 * news may come in any order and more than once. What it says is a guess: the owner itself is asked, and PostgreSQL fences.
 */
export interface OwnerTable {
  ownerOf(shard: ShardId): NodeId | null;
  get(shard: ShardId): Ownership | undefined;
  entries(): Iterable<Ownership>;
  /** Takes over what is newer than what is known; true: something was. */
  learn(news: readonly Ownership[]): boolean;
  /** Called with what changed. Returns the unsubscribe. */
  onChange(listener: (changed: readonly Ownership[]) => void): () => void;
}

/** A table that knows nothing yet. */
export function createOwnerTable(): OwnerTable {
  const known = new Map<ShardId, Ownership>();
  const listeners = new Set<(changed: readonly Ownership[]) => void>();
  return {
    ownerOf: (shard) => known.get(shard)?.owner ?? null,
    get: (shard) => known.get(shard),
    entries: () => known.values(),
    learn: (news) => {
      const changed = news.filter((next) => isNewer(next, known.get(next.shard)));
      for (const next of changed) known.set(next.shard, next);
      if (changed.length > 0) for (const listener of listeners) listener(changed);
      return changed.length > 0;
    },
    onChange: (listener) => {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
  };
}

/** An epoch begins with its owner, and ends when that gives the shard up. */
function isNewer(next: Ownership, known: Ownership | undefined): boolean {
  if (known === undefined || next.epoch > known.epoch) return true;
  return next.epoch === known.epoch && next.owner === null && known.owner !== null;
}
