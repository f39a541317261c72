/**
 * What a cluster says of itself, as `Admin.ClusterStatus` and `Admin.Why` answer it: plain data, in the words of
 * `starling.proto`. What lasts is told in milliseconds up to now, so that no two clocks are compared.
 */
export interface ClusterStatus {
  readonly clusterId: string;
  /** The name of the node that asked the others. */
  readonly asked: string;
  readonly nodes: readonly ClusterNodeStatus[];
  readonly shards: readonly ClusterShardStatus[];
  /** Shards that nobody serves as far as the asked node knows. */
  readonly unowned: readonly number[];
  readonly epochMin: number;
  readonly epochMax: number;
  /** How many nodes run each version, and each model with its modules (hash). */
  readonly versions: Readonly<Record<string, number>>;
  readonly models: Readonly<Record<string, number>>;
  /** A cluster of one has no etcd. */
  readonly etcd?: Dependency | undefined;
  readonly database: Dependency;
  /** Open ones; absent: PostgreSQL did not tell. */
  readonly deadLetters?: number | undefined;
  /** What is wrong, in sentences; empty when all is well. */
  readonly problems: readonly string[];
}

/** What the asked node needs and does not hold itself. */
export interface Dependency {
  readonly state: "answers" | "away";
  /** How long it has not answered. */
  readonly silentMs: number;
}

export interface ClusterNodeStatus {
  readonly name: string;
  /** Empty: it is gone. */
  readonly node: string;
  readonly address: string;
  readonly version: string;
  readonly modelHash: string;
  /** `joining`, `serving`, `ailing`, `leaving`, `draining`, `drained`, `silent` (it did not answer) or `gone`. */
  readonly state: string;
  /** Why it did not answer, why it is gone, or what keeps it from serving; and for how long, where that is known. */
  readonly problem: string;
  readonly problemMs?: number | undefined;
  readonly uptimeS: number;
  /** How many shards of each group it owns, and its weight there. */
  readonly shards: Readonly<Record<string, number>>;
  readonly weights: Readonly<Record<string, number>>;
  /** Log entries that wait for their processing. */
  readonly lag: number;
  /** Bytes of what waits for its processing or its delivery, and the bound at which senders wait. */
  readonly queueBytes: number;
  readonly queueMaxBytes: number;
  readonly residentEntities: number;
  readonly handOffs: number;
  readonly handOffsDone: number;
  readonly obligations: number;
  readonly undelivered: number;
  readonly deadLetters?: number | undefined;
}

export interface ClusterShardStatus {
  readonly shard: number;
  readonly group: string;
  /** Name of its owner; empty: nobody. */
  readonly owner: string;
  readonly epoch: number;
  /** `owned`, `arriving` (its owner reads its log), `handing off`, `unowned`, or `unknown`: its owner did not answer. */
  readonly state: string;
  readonly pinnedTo: string;
  readonly lastSeq: number;
  readonly watermark: number;
  /** Log entries that wait for their processing: seqs jump, so that a difference of them is not it. */
  readonly lag: number;
  readonly obligations: number;
  readonly undelivered: number;
}

/** Where a shard is, why, and what it waits for. */
export interface ShardExplanation {
  readonly shard: number;
  readonly group: string;
  readonly owner: string;
  readonly address: string;
  readonly epoch: number;
  /** As in {@link ClusterShardStatus}. */
  readonly state: string;
  /** Why it is there, in a sentence. */
  readonly reason: string;
  readonly lastSeq: number;
  readonly watermark: number;
  /** Log entries that wait for their processing: seqs jump, so that a difference of them is not it. */
  readonly lag: number;
  /** What it waits for, longest first; at most 100. */
  readonly waits: readonly ShardWait[];
  readonly waitsMore: number;
  readonly deadLetters?: number | undefined;
  /** Of the entity that was asked for. */
  readonly entity?: EntityExplanation | undefined;
  /** Why its owner did not answer; empty: it did. */
  readonly silence: string;
}

export interface ShardWait {
  /** `hand-off`, `arrival`, `replay`, `window`, `hook`, `obligation`, `outbox`, `append`, `flush`, `load` or `bound`. */
  readonly kind: string;
  /** In a sentence. */
  readonly what: string;
  /** Since when, up to now; absent: not known. */
  readonly forMs?: number | undefined;
  readonly type: string;
  readonly eid: string;
  readonly hook: string;
  readonly seq: number;
}

export interface EntityExplanation {
  readonly type: string;
  readonly eid: string;
  readonly resident: boolean;
  readonly exists: boolean;
  /** Seq of the last task that changed it. */
  readonly applied: number;
  /** Whether PostgreSQL has all its changes. */
  readonly flushed: boolean;
  /** Tasks in its mailbox, the one at hand included. */
  readonly mailbox: number;
  readonly waits: readonly ShardWait[];
}
