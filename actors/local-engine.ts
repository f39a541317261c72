import type { Seq, SessionId, ShardId } from "../proto/ids.ts";
import type { StarlingError } from "../proto/starling-error.ts";
import type { Counters } from "./counters.ts";
import type { Ending } from "./ending.ts";
import type { EngineStatus, LogPlace, OwnedRecord } from "./engine.ts";
import type { MessageResult } from "./lane/message-result.ts";
import type { Part, PartListener } from "./lane/part.ts";
import type { LanesReport, ShardInspection } from "./node-report.ts";
import type { LocalTicks } from "./snapshots/ticks.ts";
import type { SessionOpening } from "./store/session.ts";
import type { AcquiredShard, Fence, RawRow, StoredDeadLetter, StoredSession } from "./store/store.ts";

/** The shards that this node owns, in its lanes. Knows nothing of other nodes: what is not here is refused as MOVED. */
export interface LocalEngine {
  /** Takes shards in: reads their logs above the watermark, replays, and serves. Settles when their lanes have them. */
  own(acquired: readonly AcquiredShard[]): Promise<void>;
  /**
   * Gives shards up in order (DESIGN 5): writes what they have in memory while they are served on, then takes nothing more,
   * gives running hooks `hookGraceMs` and aborts them, waits for the append at hand, writes the rest, and forgets the
   * shards; who waits is told MOVED. Settles with the fences to release: of the shards that were not lost meanwhile.
   */
  giveUp(shards: readonly ShardId[], hookGraceMs: number): Promise<Fence[]>;
  /** Forgets shards at once, without writing: another node owns them. */
  drop(shards: readonly ShardId[]): void;
  owns(shard: ShardId): boolean;
  /** Called with shards that turned out to be another node's. */
  onLost(listener: (shards: readonly ShardId[]) => void): () => void;

  /** As {@link Engine.offer}; parts of shards that are not here are refused as MOVED. */
  offer(parts: readonly Part[], listener: PartListener): void;
  get(type: string, eid: string, atLeast: LogPlace | null): Promise<OwnedRecord | null>;
  /** Waits for what a message of a shard that is here comes to. Raises as {@link Engine.reply}, and MOVED. */
  reply(shard: ShardId, seq: Seq, deadlineMs: number): Promise<MessageResult>;
  openSession(session: string, opening: SessionOpening): Promise<StoredSession>;
  useSession(session: SessionId): Promise<void>;
  closeSession(session: SessionId): Promise<void>;
  findClosed(sessions: readonly SessionId[]): Promise<SessionId[]>;
  follow(filter: { type: string; eid: string | null; attr: string | null }, signal: AbortSignal): AsyncIterable<RawRow>;
  /** Replays an open dead letter of a shard that is here (R20). Raises MOVED. */
  replayDeadLetter(id: string): Promise<StoredDeadLetter>;
  flushedUpTo(): number;
  /** The shards that are here: the same list until one comes or goes. */
  held(): readonly Fence[];
  status(): EngineStatus;
  /** What the lanes hold, and what a shard waits for; of a shard that is not here null. They look, and change nothing. */
  report(): LanesReport;
  inspect(shard: ShardId, entity: { readonly type: string; readonly eid: string } | null): ShardInspection | null;
  onHealth(listener: (problem: StarlingError | null) => void): () => void;
  readonly ticks: LocalTicks;
  readonly counters: Counters;
  /** Finishes what is in hand, flushes, and settles with the fences to release; lane by lane, as long as there is hope. */
  close(ending?: Ending): Promise<Fence[]>;
}
