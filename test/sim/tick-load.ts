import type { SnapshotRun, TickProgress } from "../../actors/store/snapshot-store.ts";
import type { TickRecord } from "../../actors/store/tick.ts";
import type { Clock } from "../../proto/clock.ts";
import { groupOf, type ShardId, toShardId } from "../../proto/ids.ts";
import type { MemoryCommit, MemoryStore } from "../support/memory-store.ts";
import { readMemoryTickPage } from "../support/memory-ticks.ts";
import { fieldsOf } from "../support/state-fields.ts";
import type { Checker } from "./checker.ts";
import { model } from "./load.ts";

export interface TickLoadOptions {
  readonly clock: Clock;
  readonly checker: Checker;
  readonly database: () => MemoryStore;
  /** Oldest first. */
  readonly runs: readonly SnapshotRun[];
}

/** How often the table is looked at, and how long a shard's page is looked at until its visit ends. */
const lookEveryMs = 150;
const looksMin = 2;

const phases = ["visit", "components", "finalize", "ended"];

/**
 * What is done in ticks, whose rows the coordinator makes and owners read. Pages are read again and again, and have to stay
 * what they are (C1, C4); what the log holds is compared at the end (C2, C3). Ticks themselves come one after another, go
 * only forward, and end when all shards are done.
 */
export class TickLoad {
  readonly #options: TickLoadOptions;
  /** By tick and shard: the seq of its mark. */
  readonly #marks = new Map<string, number>();
  /** Tasks that other shards derived, and their causes. */
  readonly #derived: {
    readonly shard: ShardId;
    readonly seq: number;
    readonly from: ShardId;
    readonly cause: number;
  }[] = [];
  /** How far the newest run was. */
  #last = { tick: 0, phase: -1 };
  /** Of this tick: what the shards' pages are, and how often they were looked at. */
  #pages = new Map<ShardId, { readonly text: string; looks: number }>();
  #tick = 0;
  pages = 0;

  constructor(options: TickLoadOptions) {
    this.#options = options;
  }

  begin(): void {
    const { clock } = this.#options;
    const look = (): void => {
      this.#look();
      clock.after(lookEveryMs, look);
    };
    look();
  }

  get ticks(): number {
    return this.#options.runs.at(-1)?.tick ?? 0;
  }

  progress(tick: number): TickProgress {
    if (tick !== this.#tick) return { visited: 0, done: 0, text: `${tick}` };
    const all = this.#entityShards(this.#options.database());
    const looks = all.map(([shard]) => this.#pages.get(shard)?.looks ?? 0);
    const done = looks.filter((count) => count >= looksMin).length;
    return { visited: done, done, text: `${tick} ${looks.join()}` };
  }

  onCommit(commit: MemoryCommit): void {
    if (commit.kind === "command") this.#checkRuns(commit.node);
    if (commit.kind !== "append") return;
    for (const { shard, seq, head, body } of commit.request.segments) {
      const { c } = JSON.parse(head) as { readonly c: readonly (readonly number[])[] };
      for (const [line = 0, from = 0, cause = 0] of c) {
        this.#derived.push({ shard, seq: seq + line, from: toShardId(from), cause });
      }
      if (!body.startsWith("m\t") && !body.includes("\nm\t")) continue;
      for (const [line, text] of body.split("\n").entries()) {
        if (text.startsWith("m\t")) this.#mark(shard, Number(text.slice(2)), seq + line);
      }
    }
  }

  /** A repeat of an append brings the same mark again. */
  #mark(shard: ShardId, tick: number, seq: number): void {
    const known = this.#marks.get(`${tick} ${shard}`);
    if (known !== undefined && known !== seq)
      this.#options.checker.add("tick", `shard ${shard} marks tick ${tick} at ${known} and at ${seq}`);
    this.#marks.set(`${tick} ${shard}`, seq);
  }

  /** After each command of a coordinator. */
  #checkRuns(node: string): void {
    const { checker, runs, database } = this.#options;
    const run = runs.at(-1);
    if (run === undefined) return;
    const { tick, status } = run;
    const phase = phases.indexOf(run.phase);
    const last = this.#last;
    this.#last = { tick, phase };
    if (tick < last.tick || (tick === last.tick && phase < last.phase))
      checker.add(
        "tick",
        `${node} sets the run back to ${tick} ${run.phase}, after ${last.tick} ${phases[last.phase]}`,
      );
    if (runs.filter((one) => one.status === "running").length > 1) checker.add("tick", "two runs go on at once");
    if (status === "finished" && last.phase < phase && this.progress(tick).done < this.#entityShards(database()).length)
      checker.add("tick", `${node} ends tick ${tick}, and ${this.progress(tick).done} shards are done`);
  }

  #entityShards({ shards }: MemoryStore) {
    return [...shards].filter(([shard]) => groupOf(shard) === "entity");
  }

  #look(): void {
    const { durable } = this.#options.database();
    if (durable.tick === 0) return;
    if (durable.tick !== this.#tick) this.#pages = new Map();
    this.#tick = durable.tick;
    for (const [shard, { marks }] of this.#entityShards(this.#options.database()))
      if (marks.at(-1)?.tick === durable.tick) this.#lookAt(shard);
  }

  #lookAt(shard: ShardId): void {
    const { checker, database } = this.#options;
    const { durable, shards } = database();
    const { tick } = durable;
    const stored = shards.get(shard);
    if (stored === undefined) return;
    const request = { shard, tick, after: null, limit: 10_000, maxBytes: 1e9 };
    const { records } = readMemoryTickPage(stored, request, () => []);
    const text = records.flatMap((record) => (model.entities.has(record.type) ? textOf(record) : [])).join("\n");
    const known = this.#pages.get(shard);
    this.pages++;
    if (known === undefined) this.#pages.set(shard, { text, looks: 1 });
    else if (known.text === text) known.looks++;
    else checker.add("tick", `the page of shard ${shard} in tick ${tick} changed after ${known.looks} looks`);
  }

  /** Once the cluster is at rest. */
  check(): void {
    const { checker, database } = this.#options;
    for (const { shard, seq, from, cause } of this.#derived) {
      for (let tick = 1; tick <= this.ticks; tick++) {
        const own = this.#marks.get(`${tick} ${shard}`) ?? Number.POSITIVE_INFINITY;
        const other = this.#marks.get(`${tick} ${from}`) ?? Number.POSITIVE_INFINITY;
        if (seq <= own && cause > other)
          checker.add("tick", `tick ${tick} shows ${shard}/${seq} and not its cause ${from}/${cause}`);
      }
    }
    if (database().durable.tick > 0) checker.add("liveness", `tick ${database().durable.tick} has no end`);
  }

  /** What keeps the tick that runs from its end; null: nothing. */
  get unrest(): string | null {
    const { tick } = this.#options.database().durable;
    return tick === 0 ? null : `tick ${tick} goes on`;
  }
}

const textOf = ({ type, eid, state, rows }: TickRecord): string =>
  `${type} ${eid} ${JSON.stringify(fieldsOf(state))} ${rows.map(({ body }) => body).join()}`;
