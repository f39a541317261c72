import type { Segment } from "../../actors/store/store.ts";
import type { ShardId } from "../../proto/ids.ts";
import type { MemoryCommit, MemoryStore } from "../support/memory-store.ts";
import type { Checker } from "./checker.ts";
import { placeOf } from "./load.ts";

export interface QueueCheckOptions {
  readonly checker: Checker;
  readonly database: () => MemoryStore;
  /** How many tasks of a shard may wait for their processing before outside senders have to (R7). */
  readonly lagMaxEntries: number;
}

interface SentTask {
  readonly seq: number;
  /** The batch that it came with. */
  readonly batch: string;
}

/**
 * Whether queues keep to their bounds. A shard takes a part from outside as long as it is below its bound: of what clients sent
 * and the watermark has not passed, everything but the last part is less than that.
 */
export class QueueChecks {
  readonly #options: QueueCheckOptions;
  /** By shard: above the watermark, in log order. */
  readonly #waiting = new Map<ShardId, SentTask[]>();
  readonly #seen = new Set<string>();

  constructor(options: QueueCheckOptions) {
    this.#options = options;
  }

  onCommit(commit: MemoryCommit): void {
    if (commit.kind !== "append") return;
    for (const segment of commit.request.segments) this.#add(segment, commit.node);
  }

  #add({ shard, seq, at, body }: Segment, node: string): void {
    // Appends whose outcome was not known come again.
    const row = `${shard} ${seq} ${at}`;
    if (this.#seen.has(row)) return;
    this.#seen.add(row);
    const tasks = body.split("\n").flatMap((text, line) => {
      const [kind, , , attr, , , , , json = ""] = attrsOf(text);
      if (kind !== "d" || attr !== "x") return [];
      const { session, number } = placeOf(String(JSON.parse(json)));
      return [{ seq: seq + line, batch: `${session} ${number}` }];
    });
    if (tasks.length === 0) return;
    const { checker, database, lagMaxEntries } = this.#options;
    const watermark = database().shards.get(shard)?.watermark ?? 0;
    const waiting = [...(this.#waiting.get(shard) ?? []), ...tasks].filter((task) => task.seq > watermark);
    this.#waiting.set(shard, waiting);
    const last = waiting.at(-1)?.batch;
    const before = waiting.filter(({ batch }) => batch !== last).length;
    if (before >= lagMaxEntries)
      checker.add(
        "bounds",
        `${node} takes ${last} where ${before} tasks of shard ${shard} wait, at most ${lagMaxEntries}`,
      );
  }
}

function attrsOf(line: string): string[] {
  return line.startsWith("d\titem\t") ? line.split("\t") : [];
}
