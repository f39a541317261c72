import { createRandom, type Random } from "../support/random.ts";

/*
 * What goes wrong in a run, drawn from a seed and the run's number alone. Two faults of a run overlap; their kinds are the next
 * pair of all pairs, so that enough runs have every pair. Every second run has a one-way cut, every other one a half-open one.
 */

export const faultKinds = [
  "kill",
  "stop",
  "freeze",
  "cut",
  "cut-one-way",
  "half-open",
  "cut-etcd",
  "cut-postgres",
  "restart-postgres",
  "restart-etcd",
  "reset-etcd",
] as const;

/** What takes longer than a run of the others: each has a run of its own. */
export const longKinds = ["etcd-away", "freeze-in-commit"] as const;

export type FaultKind = (typeof faultKinds)[number] | (typeof longKinds)[number];

export interface Fault {
  readonly kind: FaultKind;
  /** After the begin of the load. */
  readonly atMs: number;
  /** Until it is mended: the node is started again or thawed, the cut healed, the server there again. */
  readonly lastsMs: number;
  /** Numbers of two different nodes; most kinds hit the first alone. */
  readonly nodes: readonly [number, number];
  /** A gentle or a rude way of it: of a cut whether bytes come late or never, of a restart whether it is a crash. */
  readonly manner: "gentle" | "rude";
}

type ShortKind = (typeof faultKinds)[number];

/** Every pair of kinds, a kind with itself included. */
export const allPairs: readonly (readonly [ShortKind, ShortKind])[] = faultKinds.flatMap((one, at) =>
  faultKinds.slice(at).map((other) => [one, other] as const),
);

/** After so many runs every pair must have been hit: more than there are pairs, as one may have to be skipped. */
export const pairsRuns = 100;

/** A pair in words, in whichever order its kinds came. */
export function pairName(one: FaultKind, other: FaultKind): string {
  return [one, other].sort().join(" + ");
}

/** The faults of run `run` (from 1), by time. */
export function planFaults(seed: number, run: number, nodes: number): Fault[] {
  const random = createRandom(seed * 100_003 + run);
  const [one, other] = pairOf(run - 1);
  const first = drawFault(random, one, random.between(2_000, 5_000), nodes);
  const second = drawFault(random, other, first.atMs + random.between(100, 1_500), nodes);
  const third = drawFault(random, run % 2 === 0 ? "cut-one-way" : "half-open", random.between(14_000, 17_000), nodes);
  const rest = faultKinds[random.between(0, faultKinds.length - 1)] ?? "kill";
  const fourth = drawFault(random, rest, third.atMs + random.between(0, 4_000), nodes);
  const faults = random.next() < 0.7 ? [first, second, third, fourth] : [first, second, third];
  return faults.sort((a, b) => a.atMs - b.atMs);
}

/** The fault of run `run` of the long ones: etcd is away for a minute, or a node is frozen for half of one in a commit. */
export function planLongFaults(seed: number, run: number, nodes: number): Fault[] {
  const random = createRandom(seed * 100_003 + run);
  return [drawFault(random, longKinds[(run - 1) % longKinds.length] ?? "etcd-away", 8_000, nodes)];
}

/** A fault in words. */
export function faultText({ kind, atMs, lastsMs, nodes, manner }: Fault): string {
  return `${(atMs / 1000).toFixed(1)}s ${kind} ${nodes.join(">")} ${(lastsMs / 1000).toFixed(1)}s ${manner}`;
}

/** Durations in milliseconds, from and to. */
const durations: Readonly<Record<FaultKind, readonly [number, number]>> = {
  kill: [500, 5_000],
  stop: [0, 2_000],
  freeze: [2_000, 8_000],
  cut: [1_000, 8_000],
  "cut-one-way": [1_000, 8_000],
  "half-open": [0, 0],
  "cut-etcd": [1_000, 10_000],
  "cut-postgres": [1_000, 8_000],
  "restart-postgres": [0, 2_000],
  "restart-etcd": [0, 6_000],
  "reset-etcd": [0, 0],
  "etcd-away": [60_000, 60_000],
  "freeze-in-commit": [30_000, 30_000],
};

function drawFault(random: Random, kind: FaultKind, atMs: number, nodes: number): Fault {
  const [first = 0, second = 1] = random.shuffled(Array.from({ length: nodes }, (_, index) => index));
  const lastsMs = random.between(...durations[kind]);
  return { kind, atMs, lastsMs, nodes: [first, second], manner: random.next() < 0.5 ? "gentle" : "rude" };
}

function pairOf(index: number): readonly [ShortKind, ShortKind] {
  return allPairs[index % allPairs.length] ?? ["kill", "kill"];
}
