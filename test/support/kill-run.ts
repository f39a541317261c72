import { createServer } from "node:net";
import { setImmediate } from "node:timers/promises";
import { type FailPoint, failPoints } from "../../actors/lane/fail-point.ts";
import { failPointVariable } from "../../node/armed-fail-point.ts";
import { type NodeProcess, type NodeProcessOptions, startNodeProcess } from "./node-process.ts";
import type { Random } from "./random.ts";

/** Where a node is killed: at a fail-point, or from outside at whatever it is doing. */
export type KillPlace = FailPoint | "any-moment";

export interface KillRunOptions {
  readonly node: NodeProcessOptions;
  readonly kills: number;
  readonly random: Random;
  /** Rejects when there is no use in going on. */
  readonly failed: Promise<never>;
}

/** How often a node was killed at each place. */
export type KillHits = ReadonlyMap<KillPlace, number>;

const places: readonly KillPlace[] = [...failPoints, "any-moment"];

/** Which hit is the last one: from what recovery alone brings to what a node under load has of each in a second or two. */
const countMax: Readonly<Record<FailPoint, number>> = {
  acquired: 1,
  "in-recovery": 300,
  "before-append": 100,
  "committed-not-acknowledged": 100,
  "before-flush": 10,
  "between-flush-and-watermark": 10,
  "outbox-written-not-sent": 800,
  "sent-not-marked": 800,
  "in-hook": 1000,
  "hook-answered": 2000,
};
/** A node that does not come to its fail-point is killed where it is, and the next one dies at the first hit. */
const patienceMs = 4_000;
const momentMaxMs = 1_500;

/** Starts and kills nodes, place after place, each lap in another order. */
export async function killNodes({ node, kills, random, failed }: KillRunOptions): Promise<KillHits> {
  const hits = new Map<KillPlace, number>(places.map((place) => [place, 0]));
  let lap: { readonly place: KillPlace; readonly count: number }[] = [];
  for (let kill = 0; kill < kills; kill++) {
    if (lap.length === 0) lap = random.shuffled(places).map((place) => ({ place, count: countOf(place, random) }));
    const next = lap.shift();
    if (next === undefined) break;
    const { place, count } = next;
    const hit = place === "any-moment" ? await killLater(node, random) : await dieAt(node, place, count);
    await Promise.race([failed, setImmediate()]);
    hits.set(hit, (hits.get(hit) ?? 0) + 1);
    if (hit !== place) lap.unshift({ place, count: 1 });
  }
  return hits;
}

function countOf(place: KillPlace, random: Random): number {
  return place === "any-moment" ? 0 : random.between(1, countMax[place]);
}

async function killLater(options: NodeProcessOptions, random: Random): Promise<KillPlace> {
  const node = await startNodeProcess(options);
  await before(node, random.between(0, momentMaxMs));
  return "any-moment";
}

async function dieAt(options: NodeProcessOptions, place: FailPoint, count: number): Promise<KillPlace> {
  const env = { ...options.env, [failPointVariable]: `${place}:${count}` };
  const line = `{"failPoint":"${place}"`;
  let node: NodeProcess;
  try {
    node = await startNodeProcess({ ...options, env });
  } catch (error) {
    // It died before it served.
    if (error instanceof Error && error.message.includes(line)) return place;
    throw error;
  }
  await before(node, patienceMs);
  return node.log.some((logged) => logged.startsWith(line)) ? place : "any-moment";
}

/** Waits for the end of a node, and kills it after `ms`. */
async function before(node: NodeProcess, ms: number): Promise<void> {
  const timer = setTimeout(() => void node.kill(), ms);
  const ended = await node.ended;
  clearTimeout(timer);
  if (ended !== "SIGKILL") throw new Error(`the node ended with ${ended}:\n${node.log.slice(-30).join("\n")}`);
}

/** A port that nobody listens on. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise<void>((resolve) => server.close(() => resolve()));
  if (address === null || typeof address === "string") throw new Error("the system gave no port");
  return address.port;
}
