import type { DataPointTask, Datapoint, Eid } from "../../modules/datapoint.ts";
import type { RecordView } from "../../modules/hook.ts";
import type { Seq, ShardId } from "../../proto/ids.ts";
import type { PartTask } from "../lane/part.ts";
import type { HookRun } from "./hook-run.ts";

/** What one run of a hook is about. */
export interface Call {
  readonly shard: ShardId;
  /** The cause: seq of the datapoint, or of the task's first line; in a snapshot its tick. */
  readonly seq: Seq;
  readonly now: number;
  /** Stable over repetitions of this run (P9). */
  readonly key: string;
  /** Of a message its actor's key. */
  readonly self: string;
  readonly record: RecordView | null;
  /** Attempts after the first one, if not as many as the hook has. */
  readonly retries?: number;
  /** Calls the hook; `by`: how those are called that a task concerns. */
  invoke(by: (call: HookCall, run: HookRun) => unknown, run: HookRun): unknown;
}

/** A run of a hook for a task. Fields that few hooks read are made when read. */
export class HookCall implements Call {
  readonly shard: ShardId;
  readonly seq: Seq;
  readonly hookId: string;
  readonly now: number;
  readonly record: RecordView | null;
  readonly datapoint: Datapoint | null;
  /** The task that it is about. */
  readonly source: PartTask;

  constructor(
    at: { shard: ShardId; seq: Seq; now: number },
    hookId: string,
    subject: { task: PartTask; datapoint: Datapoint | null; record: RecordView | null },
  ) {
    this.shard = at.shard;
    this.seq = at.seq;
    this.now = at.now;
    this.hookId = hookId;
    this.record = subject.record;
    this.datapoint = subject.datapoint;
    this.source = subject.task;
  }

  invoke(by: (call: HookCall, run: HookRun) => unknown, run: HookRun): unknown {
    return by(this, run);
  }

  get self(): string {
    return this.source.eid;
  }

  get eid(): Eid {
    return this.source.eidValue;
  }

  get task(): DataPointTask {
    const { entity, eidValue, datapoints, ttlTokens } = this.source;
    const task = { type: entity.id, eid: eidValue, datapoints, delete: this.source.delete };
    return ttlTokens === null ? task : { ...task, ttlTokens };
  }

  get key(): string {
    return `${this.shard}-${this.seq}-${this.hookId}`;
  }
}
