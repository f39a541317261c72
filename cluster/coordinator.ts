/**
 * What membership needs of etcd: keys under leases, compare-and-set, lists, and hints that something changed. Implemented by
 * etcd (`etcd.ts`) and in memory (`memory-coordinator.ts`); one contract suite runs against both. It decides how fast, never
 * who is right: that is PostgreSQL's.
 *
 * Errors are StarlingErrors: UNAVAILABLE (no answer within the deadline: the outcome is unknown; ask again), NOT_FOUND (the
 * lease is gone). No call waits longer than its deadline, and none is repeated behind the caller's back.
 */
export interface Coordinator {
  /** Tells one etcd from another: its own cluster id, as text. */
  identity(): Promise<string>;
  /** Grants a lease; keys under it go when it lapses. */
  grant(ttlMs: number): Promise<LeaseId>;
  /** Renews a lease for its whole time to live. Raises NOT_FOUND when it has lapsed. */
  keepAlive(lease: LeaseId): Promise<void>;
  /** Ends a lease at once, with its keys. Ending one that is gone succeeds. */
  revoke(lease: LeaseId): Promise<void>;
  /** Does all of `writes` if all of `conditions` hold, else nothing. */
  commit(conditions: readonly Condition[], writes: readonly Write[]): Promise<Committed>;
  /** All keys that begin with `prefix`, in order, as of one revision. */
  list(prefix: string): Promise<Listing>;
  /**
   * Calls `onHint` when something under `prefix` may have changed, and whenever the watch was lost and began anew. Hints
   * may be missing or too many: who needs to be sure lists again. Returns the unsubscribe.
   */
  watch(prefix: string, onHint: () => void): () => void;
  /** Idempotent. Leases are left to lapse. */
  close(): Promise<void>;
}

export type LeaseId = string;

/** `revision`: the key's last change was at it; 0: there is no such key. */
export interface Condition {
  readonly key: string;
  readonly revision: number;
}

export type Write =
  | { readonly kind: "put"; readonly key: string; readonly value: string; readonly lease: LeaseId | null }
  | { readonly kind: "delete"; readonly key: string };

export interface Committed {
  /** Whether the conditions held. */
  readonly done: boolean;
  /** Of the coordinator, after the call. */
  readonly revision: number;
}

export interface Listing {
  readonly entries: readonly KeyValue[];
  readonly revision: number;
}

export interface KeyValue {
  readonly key: string;
  readonly value: string;
  /** Of the key's last change. */
  readonly revision: number;
  /** Null: it stays until it is deleted. */
  readonly lease: LeaseId | null;
}
