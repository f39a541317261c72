import { createHash } from "node:crypto";
import type { ShardId } from "../../proto/ids.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import type { Part, PartTask } from "../lane/part.ts";
import { createLineText, writeTask } from "../log/line.ts";
import type { SplitBatch } from "./batch.ts";
import type { CallChannel, CallSession } from "./call-session.ts";

/** Who sends tasks that no client has sent and no hook has derived. */
export interface TaskSender {
  readonly calls: Pick<CallSession, "send">;
  readonly shardOf: (type: string, eid: string) => ShardId;
}

const sendWithinMs = 10_000;

/** Resolves when all tasks are durable, wherever their shards are. What cannot be sent raises its error; some may be durable. */
export async function sendTasks(
  { calls, shardOf }: TaskSender,
  tasks: readonly PartTask[],
  signal: AbortSignal,
): Promise<void> {
  if (tasks.length === 0) return;
  const byShard = new Map<ShardId, PartTask[]>();
  for (const task of tasks) {
    const shard = shardOf(task.entity.id, task.eid);
    const known = byShard.get(shard);
    if (known === undefined) byShard.set(shard, [task]);
    else known.push(task);
  }
  const call = { deadlineMs: sendWithinMs, signal, level: "durable", idempotencyKey: "" } as const;
  const { rejections } = await calls.send((channel) => splitTasks(byShard, channel), call);
  if (rejections[0] !== undefined) throw new StarlingError("STORE_REFUSED", rejections[0].message);
}

/** Rough size in memory of a task, and of a part. */
const taskBytes = 300;
const partBytes = 150;

function splitTasks(byShard: ReadonlyMap<ShardId, readonly PartTask[]>, { channel, number }: CallChannel): SplitBatch {
  const text = createLineText();
  for (const tasks of byShard.values()) for (const task of tasks) writeTask(task, text, "\n");
  const hash = createHash("sha256").update(text.pieces.join("")).digest("hex").slice(0, 16);
  const parts = [...byShard].map(([shard, tasks], position): Part => {
    const bytes = partBytes + taskBytes * tasks.length;
    return {
      kind: "part",
      ...{ position, shard, channel, number, predecessor: null, hash, tasks, rejections: [], bytes },
    };
  });
  const partOf = Int32Array.from(parts.keys());
  const bytes = parts.reduce((sum, part) => sum + part.bytes, 0);
  return {
    number,
    bytes,
    items: parts.length,
    accepted: parts.length,
    parts,
    rejections: [],
    partOf,
    whole: false,
  };
}
