import { historyRuleOf } from "../../actors/history/history-rule.ts";
import { mergeRuns, observe, type Piece, type Run } from "../../actors/history/history-run.ts";
import type { EntityKey } from "../../actors/store/store.ts";
import type { EntitySpec } from "../../modules/model.ts";
import { shardOf } from "../../proto/shard-of.ts";
import { epochMs, mulberry32 } from "./things.ts";

/** Observations of a history are a minute apart, and last half of one. */
export const stepMs = 60_000;
const lengthMs = 30_000;
const states = ['"up"', '"down"', '"odd"'] as const;
const ports = ["22", "80", "443", "8080"] as const;

/** How many shards the benchmark's database has. */
export const hostShards = 64;

/** A host's key. */
export function hostKey(number: number): EntityKey {
  const eid = `host-${number}`;
  return { shard: shardOf("entity", "host", eid, hostShards), type: "host", eid };
}

/** The observations `from` to below `until` of one attribute of a host, the same in every run. */
export function hostObservations(number: number, attr: string, from: number, until: number): Piece[] {
  const values = attr === "state" ? states : ports;
  const pieces: Piece[] = [];
  for (let i = from; i < until; i++) {
    // Values stay for a while, as states do.
    const random = mulberry32(number * 65_537 + (attr === "state" ? Math.floor(i / 3) : i))();
    const t1 = epochMs + i * stepMs + (number % 1000);
    pieces.push(observe(values[Math.floor(random * values.length)] ?? "null", t1, t1 + lengthMs, (8 + (i % 3)) / 10));
  }
  return pieces;
}

/** An observation as flushes add it to a history. */
export function lineOf(attr: string, { value, t1, t2, c }: Piece): string {
  return `${attr}\tbench\t${t1}\t${t2}\t${c / 1e9}\t${value}`;
}

/** The first `count` observations of an attribute, merged at once. */
export function hostRuns(spec: EntitySpec, number: number, attr: string, count: number): Run[] {
  return mergeRuns(historyRuleOf(spec.attributes.get(attr)), [], hostObservations(number, attr, 0, count));
}
