import type { Epoch, NodeId, Seq, ShardId } from "../../proto/ids.ts";
import type { SnapshotTexts } from "../history/entity-at.ts";
import type { EntityKey, Fence } from "./store.ts";

/**
 * What snapshot runs need of durable storage. Each call is one transaction. Whoever writes for a shard names its epoch, and is
 * answered "lost" when that is over; a call that is repeated since its outcome is unknown does nothing twice.
 */
export interface SnapshotStore {
  /** Runs, newest first, of ticks below `before`. */
  readRuns(request: { readonly before: number | null; readonly limit: number }): Promise<SnapshotRun[]>;
  /** The run that goes on, and the newest one that is finished. */
  readTicks(): Promise<SnapshotTicks>;
  /** Makes the next tick, unless one is running: then that one's number, and `begun` is false. */
  beginRun(owner: ShardWriter, run: NewSnapshotRun): Promise<BegunRun | "lost">;
  /** Notes how far the running tick is. */
  noteRun(owner: ShardWriter, tick: number, progress: SnapshotProgress): Promise<"written" | "lost">;
  /** Ends the running tick: from here on everybody sees it, or nobody ever does. */
  endRun(owner: ShardWriter, tick: number, end: SnapshotEnd): Promise<"written" | "lost">;
  /** Forgets runs that ended before (Unix ms), but for the newest finished one. Returns how many. */
  dropRuns(owner: ShardWriter, before: number): Promise<number>;
  /** Asks the coordinator for something. */
  addRequest(request: NewSnapshotRequest): Promise<void>;
  /** Runs that nobody has begun, and ends of running ones. */
  readRequests(): Promise<NewSnapshotRequest[]>;
  /** The tick of a run that was asked for; null: it has not begun. */
  readRequest(id: string): Promise<number | null>;
  /** Nodes that own shards. */
  readOwnerNodes(): Promise<NodeId[]>;
  /** What hooks of a node came to; of their tasks the first answer per hook stands. Nothing of a run that has ended. */
  noteNode(note: SnapshotNodeNote): Promise<void>;
  readNodes(tick: number): Promise<Omit<SnapshotNodeNote, "answers">[]>;
  /** Answers of hooks that run on every node, whose tasks are not yet on their way. */
  readAnswers(): Promise<SnapshotTasks[]>;
  dropAnswer(tick: number, page: number): Promise<void>;

  /** How far the shards are in a tick, at little cost. */
  readProgress(tick: number): Promise<TickProgress>;
  /** Where the shards are in a tick; those that have no mark of it are missing. */
  readMarks(tick: number): Promise<SnapshotMark[]>;
  /** The shard's place in the tick, after everything of failed ticks above `base` is taken back; null: no mark of it. */
  openVisit(writer: ShardWriter, tick: number, base: number): Promise<OpenedVisit | "lost" | null>;
  /** What a tick that builds on another one has to look at. Null: more than the limit. */
  readChanges(request: ChangesRequest): Promise<SnapshotChange[] | null>;
  /** Writes a page and moves the cursor. A page that is there already is left as it is. */
  writePage(writer: ShardWriter, page: SnapshotPage): Promise<"written" | "lost">;
  /** Those of the rows whose bodies cannot be stored. */
  findRefused(rows: readonly SnapshotRow[]): Promise<SnapshotRow[]>;
  /** Rows of shards in another database than their component's, before its page. */
  writeForeign(tick: number, rows: readonly SnapshotRow[]): Promise<void>;
  /** Tasks of a shard's hooks that are not yet durable where they belong, oldest first. */
  readTasks(shards: readonly ShardId[], limit: number): Promise<SnapshotTasks[]>;
  dropTasks(writer: ShardWriter, tick: number, page: number): Promise<void>;
  /** Drops rows that ended in tick `upTo` or before. Returns how many, at most `limit`. */
  cleanSnapshots(shard: ShardId, upTo: number, limit: number): Promise<number>;
  /** Drops marks before the newest one, of shards without entities: visits, which drop those of the others, pass them over. */
  dropMarks(): Promise<void>;

  /** Whom the entities of linked types link to, in the order of their keys. */
  readValueLinks(after: EntityKey | null, limit: number): Promise<SnapshotValueLinks[]>;
  readValues(keys: readonly EntityKey[]): Promise<SnapshotValueRow[]>;
  /** Replaces what stands behind values that were computed in the tick; of one whose shard has a mark of a later tick, nothing. Null
   * writes in another database than the writer's. */
  writeValues(writer: ShardWriter | null, tick: number, rows: readonly ValueChanges[]): Promise<"written" | "lost">;
}

export interface ShardWriter extends Fence {
  readonly node: NodeId;
  readonly shard: ShardId;
  readonly epoch: Epoch;
}

export type SnapshotKind = "full" | "changed";
export type SnapshotCause = "schedule" | "demand";
export type SnapshotStatus = "running" | "finished" | "failed";
/** What a running tick does: entities shard by shard, then linked ones, then the hooks at the end. */
export type SnapshotPhase = "visit" | "components" | "finalize" | "ended";

/** One tick. Times are Unix milliseconds. */
export interface SnapshotRun {
  readonly tick: number;
  /** The instant whose values it computes. */
  readonly at: number;
  readonly kind: SnapshotKind;
  readonly cause: SnapshotCause;
  readonly status: SnapshotStatus;
  readonly phase: SnapshotPhase;
  /** The newest finished tick when it began; 0: none. */
  readonly base: number;
  /** Of the hooks, the model and the configuration of modules that computed it. */
  readonly fingerprint: string;
  readonly startedAt: number;
  readonly endedAt: number | null;
  readonly counts: SnapshotCounts;
  /** By hook id. */
  readonly hooks: SnapshotHookReports;
  readonly error: string | null;
}

export interface SnapshotCounts {
  /** Entities that were computed. */
  readonly entities?: number;
  /** Snapshots that differ from those before, and those that ended with their entities. */
  readonly written?: number;
  readonly closed?: number;
  /** Values that could not be stored: the snapshot before stands. */
  readonly refused?: number;
  readonly tasks?: number;
  readonly components?: number;
  readonly componentMax?: number;
  readonly shards?: number;
  readonly shardsDone?: number;
}

/** See `HookReport` in `actors/snapshots/snapshot-report.ts`. */
export interface SnapshotHookReport {
  readonly calls: number;
  readonly failures: number;
  readonly undeclared: number;
  readonly refused: number;
  readonly tasks: number;
  readonly ms: number;
  readonly problems: readonly string[];
}

export type SnapshotHookReports = Readonly<Record<string, SnapshotHookReport>>;

export interface SnapshotTicks {
  readonly running: SnapshotRun | null;
  readonly finished: SnapshotRun | null;
  /** The newest one, whatever became of it. */
  readonly newest: SnapshotRun | null;
}

export interface NewSnapshotRun extends Pick<SnapshotRun, "at" | "kind" | "cause" | "fingerprint"> {
  /** Ids of the requests that it answers. */
  readonly requests: readonly string[];
}

export type NewSnapshotRequest = { readonly id: string } & (
  | { readonly kind: "run"; readonly full: boolean }
  /** Why the tick is to fail. */
  | { readonly kind: "end"; readonly tick: number; readonly error: string }
);

export interface BegunRun {
  readonly tick: number;
  readonly begun: boolean;
}

export interface SnapshotProgress {
  readonly phase: SnapshotPhase;
  readonly counts: SnapshotCounts;
}

export interface SnapshotEnd {
  readonly status: "finished" | "failed";
  readonly counts: SnapshotCounts;
  readonly hooks: SnapshotHookReports;
  readonly error: string | null;
}

export interface SnapshotNodeNote {
  readonly tick: number;
  readonly node: NodeId;
  readonly step: "init" | "finalize";
  readonly hooks: SnapshotHookReports;
  /** Tasks as {@link SnapshotTasks} has them, by hook. */
  readonly answers: readonly { readonly hook: string; readonly body: string }[];
}

/** Tasks of hooks on their way into the ingestion. */
export interface SnapshotTasks {
  /** Null: of a hook that runs on every node. */
  readonly shard: ShardId | null;
  readonly tick: number;
  readonly page: number;
  /** JSON text: see `actors/snapshots/snapshot-tasks.ts`. */
  readonly body: string;
}

/** A place among a shard's entities, which are in the order of eid and type. */
export interface EntityPlace {
  readonly eid: string;
  readonly type: string;
}

export interface TickProgress {
  /** Shards whose entities have been looked at, and shards of which all is written. */
  readonly visited: number;
  readonly done: number;
  /** Another one whenever anything has moved. */
  readonly text: string;
}

export interface SnapshotMark {
  readonly shard: ShardId;
  readonly tick: number;
  /** Of the mark in the shard's log. */
  readonly seq: Seq;
  /** The last entity that is written. */
  readonly cursor: EntityPlace;
  /** Of the next row of tasks. */
  readonly page: number;
  readonly visited: boolean;
  readonly done: boolean;
  readonly counts: SnapshotCounts & { readonly hooks?: SnapshotHookReports };
}

export interface OpenedVisit {
  readonly mark: SnapshotMark;
  /** The mark of the tick that it builds on; null: the shard has none. */
  readonly baseSeq: Seq | null;
}

export interface ChangesRequest {
  /** Such as have a mark of the base, and whose watermarks have passed that of the tick. */
  readonly shards: readonly ShardId[];
  readonly base: number;
  /** Stored snapshots and values that are due by now, Unix ms, are among it. */
  readonly at: number;
  readonly limit: number;
}

/** An entity that was written since the base, or is due; or one of which only a snapshot is left. */
export type SnapshotChange = EntityKey;

/** What one transaction writes of a shard. */
export interface SnapshotPage {
  readonly tick: number;
  readonly stage: "visit" | "components";
  /** The cursor before and after; of the last page of a stage it is empty again. */
  readonly after: EntityPlace;
  readonly cursor: EntityPlace;
  /** The last page of the shard's entities. */
  readonly visited: boolean;
  /** The last page of all. */
  readonly done: boolean;
  /**
   * Which entities between the two have gone, so that their snapshots and values end: `others` than those of the rows, the
   * rows of kind `closed`, or such as have to be looked for.
   */
  readonly gone: "others" | "closed" | "unknown";
  readonly rows: readonly SnapshotRow[];
  /** Of this shard. */
  readonly values: readonly NewSnapshotValue[];
  /** JSON text; null: none. */
  readonly tasks: string | null;
  /** Of the tick so far. What is written and closed is counted by the store. */
  readonly counts: SnapshotMark["counts"];
}

/** What is to stand of one entity. */
export type SnapshotRow = EntityKey &
  (
    | ({
        readonly kind: "body";
        /** When time alone changes it next, Unix ms. */
        readonly due: number | null;
      } & SnapshotTexts)
    /** `kept`: the snapshot before stands. */
    | { readonly kind: "closed" | "kept" }
  );

/** What hooks changed of a value, as it stands behind its body. */
export interface ValueChanges extends EntityKey {
  readonly changes: string;
}

export interface SnapshotValueLinks extends EntityKey {
  /** When it was computed last. */
  readonly tick: number;
  readonly links: string;
  /** Before that. */
  readonly was: string;
  /** Of its body; 0: the entity has gone. */
  readonly bytes: number;
}

export interface SnapshotValueRow extends EntityKey {
  readonly due: number | null;
  readonly body: string;
}

/** Values of an entity of a linked type. */
export interface NewSnapshotValue extends SnapshotValueRow {
  readonly links: string;
}
