import type { Clock } from "../../proto/clock.ts";

/** How well a node reaches the coordinator. */
export interface Contact {
  /** Whether it answered within the last time to live of a lease. */
  readonly connected: boolean;
  /** When it last did; before that, when this contact began. */
  readonly answeredAtMs: number;
  /** Since when it has answered without a gap: no call failed, and no two answers lay more than a time to live apart. */
  readonly sinceMs: number;
  answered(): void;
  /** A call was not answered. */
  failed(): void;
}

/** A contact without a gap so far: who has just come has seen nothing that a gap could have changed. */
export function createContact(clock: Clock, leaseTtlMs: number): Contact {
  const begunAtMs = clock.now();
  let sinceMs = Number.NEGATIVE_INFINITY;
  let answeredAtMs: number | null = null;
  let broken = false;
  const isStale = (): boolean => answeredAtMs !== null && clock.now() - answeredAtMs > leaseTtlMs;
  return {
    get connected() {
      return answeredAtMs !== null && !isStale();
    },
    get answeredAtMs() {
      return answeredAtMs ?? begunAtMs;
    },
    get sinceMs() {
      return sinceMs;
    },
    answered: () => {
      if (broken || isStale()) sinceMs = clock.now();
      broken = false;
      answeredAtMs = clock.now();
    },
    failed: () => {
      broken = true;
    },
  };
}
