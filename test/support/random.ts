import { mulberry32 } from "../bench/things.ts";

/** Numbers that look random and are the same for the same seed; for tests only. */
export interface Random {
  /** From 0 to below 1. */
  next(): number;
  /** A whole number from `first` to `last`, both included. */
  between(first: number, last: number): number;
  /** The items in another order. */
  shuffled<T>(items: readonly T[]): T[];
}

/** A source of random numbers that starts at `seed`. */
export function createRandom(seed: number): Random {
  const next = mulberry32(seed);
  const between = (first: number, last: number): number => first + Math.floor(next() * (last - first + 1));
  const shuffled = <T>(items: readonly T[]): T[] =>
    items
      .map((item) => ({ item, at: next() }))
      .sort((a, b) => a.at - b.at)
      .map(({ item }) => item);
  return { next, between, shuffled };
}

/** The seed of this run: STARLING_SEED, or one that no other run has. A test prints it. */
export function seedOfRun(): number {
  return Number(process.env.STARLING_SEED ?? Date.now() % 1_000_000_007);
}
