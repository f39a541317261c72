import type { ClientDatapoint } from "../../proto/client-batch.ts";
import type { BatchOutcome } from "../../proto/client-session.ts";
import type { ShardId } from "../../proto/ids.ts";
import { shardOf } from "../../proto/shard-of.ts";
import type { MemoryCommit, MemoryStore } from "../support/memory-store.ts";
import { Ledger } from "./ledger.ts";
import { flagsOf, hookIds, isMember, isOrdered, unstorable } from "./load.ts";

export interface Violation {
  /** Which promise was broken. */
  readonly checker: string;
  readonly text: string;
}

export interface CheckerOptions {
  readonly database: () => MemoryStore;
  readonly entityShards: number;
  readonly now: () => number;
}

/** How much an epoch grows at least that comes from another world (R25). */
const worldEpochs = 1000;

/** What is compared while a run goes on: every commit, and every acknowledgement with what it says. */
export class Checker {
  readonly ledger = new Ledger();
  readonly violations: Violation[] = [];
  readonly counts = { epochChanges: 0, fenced: 0, unblocked: 0, lapsed: 0, obligations: 0 };
  readonly #options: CheckerOptions;
  /** By shard: the newest epoch, its owner, and where it was acquired. */
  readonly #owners = new Map<ShardId, { readonly epoch: number; readonly node: string; readonly timeline: number }>();
  /** Tasks whose creation was refused: shard and first seq. */
  readonly refused = new Set<string>();
  /** Values that were acknowledged, by what was said of them. */
  readonly durable = new Set<string>();
  readonly processed = new Set<string>();
  /** Values whose sender has seen what it waits for. */
  readonly settled = new Set<string>();

  constructor(options: CheckerOptions) {
    this.#options = options;
  }

  add(checker: string, text: string): void {
    if (this.violations.length < 20)
      this.violations.push({ checker, text: `${Math.round(this.#options.now())} ms: ${text}` });
  }

  onCommit(commit: MemoryCommit): void {
    const { timeline } = this.#options.database().world;
    switch (commit.kind) {
      case "acquire":
        for (const { shard, epoch } of commit.acquired) {
          this.counts.epochChanges++;
          const known = this.#owners.get(shard);
          const grows = known !== undefined && known.timeline !== timeline ? worldEpochs : 1;
          if (known !== undefined && known.epoch + grows > epoch)
            this.add("epoch", `shard ${shard}: epoch ${epoch} after ${known.epoch} of timeline ${known.timeline}`);
          this.#owners.set(shard, { epoch, node: commit.node, timeline });
        }
        return;
      case "append":
        this.#checkFences(commit);
        for (const segment of commit.request.segments) this.ledger.add(segment);
        return;
      case "flush":
        this.#checkFences(commit);
        for (const { shard, seq } of commit.request.refused) this.refused.add(`${shard} ${seq}`);
        this.counts.obligations += commit.request.obligations?.filter(({ held }) => held !== null).length ?? 0;
        return;
      case "command":
        this.#checkFences(commit);
        return;
      case "fenced":
        this.counts.fenced++;
        return;
      case "unblock":
        this.counts.unblocked += commit.ended;
        return;
      case "lapse":
        this.counts.lapsed++;
        return;
    }
  }

  #checkFences({ kind, node, request }: Extract<MemoryCommit, { kind: "append" | "flush" | "command" }>): void {
    const { timeline } = this.#options.database().world;
    for (const { shard, epoch } of request.fences) {
      const known = this.#owners.get(shard);
      if (known?.epoch === epoch && known.node === node) {
        if (known.timeline !== timeline)
          this.add("world", `${kind} of ${node} to shard ${shard}, which it had acquired on another timeline`);
        continue;
      }
      this.add(
        "epoch",
        `${kind} of ${node} under epoch ${epoch} of shard ${shard}, whose owner is ${known?.node} of ${known?.epoch}`,
      );
    }
  }

  /** A batch was acknowledged: what was said of it holds now. */
  onAcked(batch: readonly ClientDatapoint[], outcome: BatchOutcome, level: "durable" | "processed"): void {
    const refused = new Map(outcome.rejections.map(({ index, code }) => [index, code]));
    const expected = this.refusedOf(batch);
    for (const [index, { v }] of batch.entries()) {
      const value = String(v);
      if (refused.get(index) !== expected.get(index))
        this.add("rejected", `${value} was answered ${refused.get(index) ?? "OK"}, not ${expected.get(index) ?? "OK"}`);
      if (refused.has(index)) continue;
      this.durable.add(value);
      this.settled.add(value);
      const line = this.ledger.sent.get(value)?.[0];
      if (line === undefined) this.add("lost", `${value} was acknowledged as ${level} and is not in the log`);
      else if (level === "processed") this.#checkProcessed(value, line, outcome.obligations);
    }
  }

  /** What of a batch is refused, by index: what is wrong itself, and what the same shard gets together with that. */
  refusedOf(batch: readonly ClientDatapoint[]): ReadonlyMap<number, string> {
    const isUnstorable = ({ v }: ClientDatapoint): boolean => flagsOf(String(v)).includes(unstorable);
    const shards = new Set(batch.filter(isUnstorable).map(({ eid }) => this.shardOf(String(eid))));
    const found = new Map<number, string>();
    for (const [index, { eid, v }] of batch.entries()) {
      if (flagsOf(String(v)) === "b") found.set(index, "UNKNOWN_ATTRIBUTE");
      else if (shards.has(this.shardOf(String(eid)))) found.set(index, "STORE_REFUSED");
    }
    return found;
  }

  #checkProcessed(
    value: string,
    { shard, seq, task }: { shard: ShardId; seq: number; task: number },
    obligations: number,
  ): void {
    this.processed.add(value);
    const stored = this.#options.database().shards.get(shard);
    if ((stored?.watermark ?? 0) < seq)
      this.add(
        "processed",
        `${value} at ${shard}/${seq} was said to be processed, the watermark is ${stored?.watermark}`,
      );
    // What ends processes is given up, with all its hooks.
    if (obligations > 0 || this.refused.has(`${shard} ${task}`) || flagsOf(value) === "q") return;
    const key = `${shard}-${seq}-`;
    if (
      isOrdered(value) &&
      !this.ledger.derived.has(`order ${key}${hookIds.own}`) &&
      !this.ledger.outbox.has(key + hookIds.own)
    )
      this.add("processed", `${value} was said to be processed, and its hook's answer is not in the log`);
    const cross = key + hookIds.cross;
    if (isMember(value) && !this.ledger.outbox.has(cross) && !this.ledger.derived.has(`member ${cross}`))
      this.add(
        "processed",
        `${value} was said to be processed, and what it derives for another shard is not in the log`,
      );
    if (
      flagsOf(value).includes("l") &&
      !this.ledger.outbox.has(key + hookIds.late) &&
      !this.ledger.derived.has(`late ${key}${hookIds.late}`)
    )
      this.add("processed", `${value} was said to be processed, and its slow hook's answer is not in the log`);
  }

  /** Whether everything that clients have in a segment was acknowledged, so that none of it is sent again. */
  isAcknowledged(shard: ShardId, seq: number): boolean {
    return (this.ledger.sentIn.get(`${shard} ${seq}`) ?? []).every((value) => this.settled.has(value));
  }

  shardOf(eid: string): ShardId {
    return shardOf("entity", "item", eid, this.#options.entityShards);
  }
}
