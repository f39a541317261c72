import type { ClientDatapoint } from "../../proto/client-batch.ts";
import type { Clock } from "../../proto/clock.ts";
import { toSeq, toShardId } from "../../proto/ids.ts";
import type { StarlingError } from "../../proto/starling-error.ts";
import type { Random } from "../support/random.ts";
import type { Checker } from "./checker.ts";
import { placeOf } from "./load.ts";
import type { SimNode } from "./sim-node.ts";

export interface ReadsOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly checker: Checker;
  readonly node: (random: Random) => SimNode | null;
  /** A node that others cannot reach: what it answers is old. */
  readonly alone: () => SimNode | null;
  readonly isOver: () => boolean;
}

interface Acknowledged {
  readonly v: string;
  readonly rank: number;
  readonly atMs: number;
}

/** What the token of an acknowledgement says. */
export interface ReadToken {
  readonly shard: number;
  readonly epoch: number;
  readonly seq: number;
}

const staleMs = 3500;
const everyMs = 300;
const refusals = new Set(["UNAVAILABLE", "BEHIND", "BUSY", "DEADLINE", "STORE", "FENCED", "MOVED"]);

/** Reads at any node: with a token they show what was acknowledged, without one they are at most 3 s stale (R24). */
export class Reads {
  readonly #options: ReadsOptions;
  /** By entity: what was acknowledged as processed, in order. */
  readonly #processed = new Map<string, Acknowledged[]>();
  /** Reads that were answered. */
  answered = 0;

  constructor(options: ReadsOptions) {
    this.#options = options;
  }

  /** Reads without a token, again and again. */
  begin(): void {
    const { clock, random, node, alone, isOver } = this.#options;
    const look = (): void => {
      if (isOver()) return;
      const last = alone();
      for (let i = 0; i < (last === null ? 1 : 4); i++) {
        const wanted = this.#drawOld();
        const at = last ?? node(random);
        if (wanted !== null && at !== null) void this.#read(at, wanted.eid, wanted.v, null);
      }
      clock.after(everyMs, look);
    };
    look();
  }

  /** A batch was acknowledged as processed. */
  onProcessed(batch: readonly ClientDatapoint[], tokens: readonly ReadToken[], random: Random): void {
    const atMs = this.#options.clock.now();
    for (const { eid, v } of batch) if (isOwn(String(eid))) this.#add(String(eid), String(v), atMs);
    if (random.next() < 0.3) void this.#readBack(batch, tokens, random);
  }

  #add(eid: string, v: string, atMs: number): void {
    const known = this.#processed.get(eid) ?? [];
    const rank = rankOf(v);
    if ((known.at(-1)?.rank ?? 0) < rank) known.push({ v, rank, atMs });
    this.#processed.set(eid, known);
  }

  /** What every read of some entity shows by now. */
  #drawOld(): { readonly eid: string; readonly v: string } | null {
    const { clock, random } = this.#options;
    const before = clock.now() - staleMs;
    const old = [...this.#processed].flatMap(([eid, all]) => {
      const last = all.findLast(({ atMs }) => atMs < before);
      return last === undefined ? [] : [{ eid, v: last.v }];
    });
    return old[random.between(0, Math.max(0, old.length - 1))] ?? null;
  }

  async #readBack(batch: readonly ClientDatapoint[], tokens: readonly ReadToken[], random: Random): Promise<void> {
    const { checker, node: anyNode } = this.#options;
    const wanted = batch.findLast(({ eid }) => isOwn(String(eid)));
    const node = anyNode(random);
    if (wanted === undefined || node === null) return;
    const eid = String(wanted.eid);
    const token = tokens.find(({ shard }) => shard === checker.shardOf(eid));
    if (token === undefined) return checker.add("token", `${wanted.v} was acknowledged without a token`);
    const atLeast = { shard: toShardId(token.shard), epoch: token.epoch as never, seq: toSeq(token.seq) };
    await this.#read(node, eid, String(wanted.v), atLeast);
  }

  async #read(
    { engine, process, name }: SimNode,
    eid: string,
    wanted: string,
    atLeast: Parameters<SimNode["engine"]["get"]>[2],
  ): Promise<void> {
    const { checker } = this.#options;
    try {
      // A frozen node answers when it wakes up.
      const record = await process.answer<Awaited<ReturnType<typeof engine.get>>>((resolve, reject) =>
        process.enter(() => void engine.get("item", eid, atLeast).then(resolve, reject)),
      );
      this.answered++;
      const found = String(record?.view.value("x") ?? "session:0:0:");
      const since = atLeast === null ? "3 s before" : "with a token";
      if (rankOf(found) < rankOf(wanted))
        checker.add("token", `a read of ${eid} at ${name} shows ${found}, after ${wanted} was acknowledged ${since}`);
    } catch (error) {
      const { code } = error as StarlingError;
      if (!refusals.has(code)) checker.add("client", `a read of ${eid} failed: ${String(error)}`);
    }
  }
}

/** Whether an entity has one sender, so that what came last is the greatest. */
function isOwn(eid: string): boolean {
  return eid.startsWith("own-");
}

function rankOf(value: string): number {
  const { number, index } = placeOf(value);
  return number * 1000 + index;
}
