import type {
  AcquiredShard,
  EntityKey,
  Fence,
  FlushRequest,
  HistorySegment,
  NewDeadLetter,
  Queries,
  Segment,
  StoredEntity,
} from "../../../actors/store/store.ts";
import { type NodeId, toNodeId, toSeq, toShardId } from "../../../proto/ids.ts";
import { hashOf } from "../../../proto/shard-of.ts";

export const nodeA: NodeId = toNodeId("node-a");
export const nodeB: NodeId = toNodeId("node-b");
export const [shard1, shard2, shard3] = [toShardId(1), toShardId(2), toShardId(3)] as const;
/** A Saturday in November 2026, UTC. */
export const noon = Date.UTC(2026, 10, 21, 12);

/** What flushes added to an entity's history, newest first. */
export async function newestRows(reads: Queries, key: EntityKey, limit: number): Promise<HistorySegment[]> {
  return (await reads.historyRows([key], null)).reverse().slice(0, limit);
}

export function fencesOf(acquired: readonly AcquiredShard[]): Fence[] {
  return acquired.map(({ shard, epoch }) => ({ shard, epoch }));
}

/** A segment with one line, from `seq` on: `d`, type ip, for each eid. */
export function segmentOf(seq: number, eids: readonly string[], change: Partial<Segment> = {}): Segment {
  const lines = eids.map((eid, i) => `d\tip\t${eid}\tport\t\t\t\t1\t${i}`);
  return {
    shard: shard1,
    seq: toSeq(seq),
    lastSeq: toSeq(seq + Math.max(eids.length, 1) - 1),
    at: noon,
    head: '{"p":[],"a":[],"c":[]}',
    body: lines.join("\n"),
    keys: eids.map((eid) => hexOf("ip", eid)).join(""),
    ...change,
  };
}

export function hexOf(type: string, eid: string): string {
  return hashOf(type, eid).toString(16).padStart(8, "0");
}

export function entityOf(eid: string, applied: number, change: Partial<StoredEntity> = {}): StoredEntity {
  return {
    shard: shard1,
    type: "ip",
    eid,
    created: toSeq(1),
    createdAt: noon,
    applied: toSeq(applied),
    state: `{"applied":${applied}}`,
    tombstone: false,
    ...change,
  };
}

export function flushOf(fences: readonly Fence[], change: Partial<FlushRequest> = {}): FlushRequest {
  return { fences, entities: [], history: [], progress: [], refused: [], deadLetters: [], ...change };
}

export function progressOf(watermark: number, change: Partial<FlushRequest["progress"][number]> = {}) {
  return { shard: shard1, watermark: toSeq(watermark), delivered: toSeq(watermark), at: noon, channels: [], ...change };
}

export function letterOf(seq: number, change: Partial<NewDeadLetter> = {}): NewDeadLetter {
  return {
    shard: shard1,
    seq: toSeq(seq),
    kind: "hook",
    hook: "module/on_new_attr/ip.port/f",
    type: "ip",
    eid: "192.0.2.1",
    code: "HOOK_FAILED",
    error: "it threw",
    at: noon,
    task: '{"eid":"192.0.2.1"}',
    ...change,
  };
}
