import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { shardOf } from "../../proto/shard-of.ts";
import { repository } from "../support/repository.ts";
import { createPlanOrder, type SendPlan } from "./plan.ts";
import type { SendReport } from "./sender.ts";

/** A sender that goes on until it is told to finish, and tells of every batch meanwhile. */
export interface LoadProcess {
  /** By number, from 1; holes are batches that are not durable yet. Unix ms. */
  readonly batches: readonly (DurableBatch | undefined)[];
  /** The time at which every shard that has entities has acknowledged something that was sent at `sinceMs` or later; null: not yet. */
  answeredMs(sinceMs: number): number | null;
  /** How old the newest batch that is durable is, by the time at which it was meant to be sent. */
  lagMs(): number;
  /** The longest time between two acknowledgements, and when it ended (Unix ms). */
  longestGap(): { readonly ms: number; readonly endMs: number };
  /** Sends nothing more; resolves when everything is processed. Rejects when the sender has failed. */
  finish(): Promise<SendReport>;
  kill(): void;
}

export interface DurableBatch {
  /** When it was meant to be sent. */
  readonly sentMs: number;
  readonly ackedMs: number;
}

/** Starts a sender of a plan with a rate and a bound. */
export function startLoadProcess(plan: SendPlan, entityShards: number): LoadProcess {
  const program = join(repository, "dist/test/bench/sender.js");
  const child = spawn(process.execPath, [program, "", JSON.stringify(plan)], { stdio: ["ignore", "pipe", "inherit"] });
  const batches: (DurableBatch | undefined)[] = [];
  const order = createPlanOrder(plan);
  const shardsOf = (number: number): Set<number> => {
    const shards = new Set<number>();
    for (let position = (number - 1) * plan.batch; position < number * plan.batch; position++) {
      shards.add(shardOf("entity", "thing", `thing-${order.at(position).entity}`, entityShards));
    }
    return shards;
  };
  const used = new Set<number>();
  for (let entity = plan.firstEntity; entity < plan.firstEntity + plan.entities; entity++) {
    used.add(shardOf("entity", "thing", `thing-${entity}`, entityShards));
  }
  let report = "";
  createInterface({ input: child.stdout }).on("line", (line) => {
    const [number = 0, sentMs = 0, ackedMs = 0] = line.split(" ").map(Number);
    if (line.startsWith("{")) report = line;
    else batches[number] = { sentMs, ackedMs };
  });
  const ended = once(child, "close");
  return {
    batches,
    answeredMs: (sinceMs) => {
      const seen = new Set<number>();
      let lastMs = 0;
      for (let number = firstSince(batches, sinceMs); number < batches.length; number++) {
        const news = [...shardsOf(number)].filter((shard) => !seen.has(shard));
        const batch = batches[number];
        // A batch that is not durable yet counts for its shards, unless they are known already.
        if (news.length > 0 && batch === undefined) return null;
        if (news.length > 0) lastMs = Math.max(lastMs, batch?.ackedMs ?? 0);
        for (const shard of news) seen.add(shard);
        if (seen.size === used.size) return lastMs;
      }
      return null;
    },
    lagMs: () => performance.timeOrigin + performance.now() - (batches.at(-1)?.sentMs ?? 0),
    longestGap: () => {
      const times = batches.flatMap((batch) => (batch === undefined ? [] : [batch.ackedMs])).sort((a, b) => a - b);
      let longest = { ms: 0, endMs: 0 };
      for (const [index, endMs] of times.entries()) {
        const ms = endMs - (times[index - 1] ?? endMs);
        if (ms > longest.ms) longest = { ms, endMs };
      }
      return longest;
    },
    finish: async () => {
      child.kill("SIGTERM");
      const [code] = (await ended) as [number | null];
      if (code !== 0) throw new Error(`the sender ended with ${code}`);
      return JSON.parse(report) as SendReport;
    },
    kill: () => void child.kill("SIGKILL"),
  };
}

/** The first batch that was sent at a time or later: those before are durable, or were sent before. */
function firstSince(batches: readonly (DurableBatch | undefined)[], sinceMs: number): number {
  for (let number = batches.length - 1; number > 0; number--) {
    const batch = batches[number];
    if (batch !== undefined && batch.sentMs < sinceMs) return number + 1;
  }
  return 1;
}
