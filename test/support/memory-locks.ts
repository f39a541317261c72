import type { ShardId } from "../../proto/ids.ts";

/** One transaction: it holds locks until it ends, and may be ended from outside. */
export interface Transaction {
  status: "open" | "ended";
  /** Called when it is ended while it waits. */
  onEnded: () => void;
}

interface Lock {
  readonly kind: "shared" | "alone";
  readonly owner: Transaction;
  readonly go: () => void;
  status: "waiting" | "held";
}

/** Locks of shards as PostgreSQL's advisory ones: first come, first served; a shared one also waits behind a waiting other. */
export interface MemoryLocks {
  /** One transaction: its locks are free when `run` is over. */
  transact<T>(run: (transaction: Transaction) => Promise<T>): Promise<T>;
  /** Takes locks in the order of the shards. False: the transaction was ended before it had all of them. */
  take(owner: Transaction, kind: "shared" | "alone", shards: readonly ShardId[]): Promise<boolean>;
  /** Whom a transaction that waits is waiting for. */
  blockersOf(owner: Transaction): readonly Transaction[];
  /** Ends a transaction as if its connection had been killed: what it did is undone, its locks are free. */
  end(owner: Transaction): void;
  /** Ends all that are open. */
  endAll(): void;
}

/** No locks. */
export function createMemoryLocks(): MemoryLocks {
  const queues = new Map<ShardId, Lock[]>();
  const open = new Set<Transaction>();
  const queueOf = (shard: ShardId): Lock[] => {
    const known = queues.get(shard) ?? [];
    queues.set(shard, known);
    return known;
  };
  const serve = (shard: ShardId): void => {
    const queue = queueOf(shard);
    for (const [index, lock] of queue.entries()) {
      const free = queue.slice(0, index).every((earlier) => isCompatible(earlier, lock));
      if (!free) return;
      if (lock.status === "held") continue;
      lock.status = "held";
      lock.go();
    }
  };
  const release = (owner: Transaction): void => {
    for (const [shard, queue] of queues) {
      const rest = queue.filter((lock) => lock.owner !== owner);
      if (rest.length === queue.length) continue;
      queues.set(shard, rest);
      serve(shard);
    }
  };
  const end = (owner: Transaction): void => {
    owner.status = "ended";
    owner.onEnded();
    release(owner);
  };
  return {
    transact: async (run) => {
      const transaction: Transaction = { status: "open", onEnded: () => {} };
      open.add(transaction);
      try {
        return await run(transaction);
      } finally {
        open.delete(transaction);
        release(transaction);
      }
    },
    take: async (owner, kind, shards) => {
      for (const shard of [...shards].sort((a, b) => a - b)) {
        if (owner.status === "ended") return false;
        const queue = queueOf(shard);
        if (queue.every((earlier) => earlier.status === "held" && isCompatible(earlier, { kind, owner }))) {
          queue.push({ kind, owner, status: "held", go: () => {} });
          continue;
        }
        await new Promise<void>((go) => {
          owner.onEnded = go;
          queue.push({ kind, owner, status: "waiting", go });
        });
      }
      return owner.status === "open";
    },
    blockersOf: (owner) => {
      const found = new Set<Transaction>();
      for (const queue of queues.values()) {
        const index = queue.findIndex((lock) => lock.owner === owner && lock.status === "waiting");
        for (const earlier of queue.slice(0, Math.max(0, index))) if (earlier.owner !== owner) found.add(earlier.owner);
      }
      return [...found];
    },
    end,
    endAll: () => {
      for (const transaction of open) end(transaction);
    },
  };
}

function isCompatible(held: Pick<Lock, "kind" | "owner">, wanted: Pick<Lock, "kind" | "owner">): boolean {
  return held.owner === wanted.owner || (held.kind === "shared" && wanted.kind === "shared");
}
