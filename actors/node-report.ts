import type { EntityExplanation, ShardWait } from "../proto/cluster-status.ts";
import type { ShardId } from "../proto/ids.ts";
import type { EngineStatus } from "./engine.ts";
import type { Lane } from "./lane/lane.ts";
import type { Shard } from "./lane/shard.ts";

/** What a node says of itself when another one asks: plain data. What lasts is told in ms up to now. */
export interface NodeReport extends LanesReport {
  readonly uptimeS: number;
  /** What keeps it from serving; null: it serves. */
  readonly problem: { readonly text: string; readonly forMs: number } | null;
  /** How long etcd and PostgreSQL have not answered it; of etcd null in a cluster of one. */
  readonly etcdSilentMs: number | null;
  readonly databaseSilentMs: number;
  readonly handOffsDone: number;
}

/** What a node's lanes hold. */
export interface LanesReport {
  readonly shards: readonly ShardReport[];
  /** Shards that were acquired, and whose log is being read. */
  readonly arriving: readonly ShardId[];
  /** Bytes that wait for their processing or their delivery, and the bound. */
  readonly queueBytes: number;
  readonly queueMaxBytes: number;
}

type ShardStatus = EngineStatus["shards"][number];

export interface ShardReport extends ShardStatus {
  readonly handOff: "draining" | "sealed" | "flushing" | null;
}

/** What a node says of a shard that is here, or on its way. */
export interface ShardInspection {
  /** Null: its log is being read. */
  readonly report: ShardReport | null;
  readonly waits: readonly ShardWait[];
  /** Of the entity that was asked for. */
  readonly entity: EntityExplanation | null;
}

/** Looks at lanes, and changes nothing. */
export function reportLanes(lanes: readonly Lane[], arriving: readonly ShardId[]): LanesReport {
  const sum = (pick: (lane: Lane) => number): number => lanes.reduce((total, lane) => total + pick(lane), 0);
  return {
    shards: lanes.flatMap((lane) => [...lane.shards.values()].map(reportShard)),
    arriving,
    queueBytes: sum(({ backlogBytes, outboxBytes }) => backlogBytes + outboxBytes),
    queueMaxBytes: sum(({ world }) => world.limits.backlogMaxBytes),
  };
}

/** Looks at a shard. */
export function reportShard(shard: Shard): ShardReport {
  return {
    shard: shard.id,
    epoch: shard.epoch,
    lastSeq: shard.durableSeq,
    watermark: shard.watermark,
    residentEntities: shard.residents,
    undelivered: shard.outbox.sent.length - shard.outbox.first,
    lagEntries: shard.backlog.tasks,
    lagBytes: shard.backlog.bytes,
    outboxBytes: shard.outbox.bytes,
    residentBytes: shard.residentBytes,
    dirtyEntities: shard.dirty.length,
    obligations: shard.obligations.size,
    handOff: shard.handOff?.status ?? null,
  };
}
