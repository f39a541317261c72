import type { StarlingError } from "../proto/starling-error.ts";

/** Whether a node serves: not while some of its work fails. */
export interface Health {
  /** What keeps it from serving; null: nothing. */
  problem(): StarlingError | null;
  /** How a kind of work goes: what goes well says nothing about other work. */
  report(work: string, problem: StarlingError | null): void;
  /** Is told at once, and whenever it changes. */
  on(listener: (problem: StarlingError | null) => void): () => void;
}

export interface HealthLog {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
}

/** The same trouble is said once, and again when no retry can mend it any more. */
export function createHealth(log: HealthLog): Health {
  const listeners = new Set<(problem: StarlingError | null) => void>();
  const troubles = new Map<string, StarlingError>();
  let told: StarlingError | null = null;
  const worst = (): StarlingError | null => {
    const all = [...troubles.values()];
    return all.find(({ retryable }) => !retryable) ?? all[0] ?? null;
  };
  return {
    problem: () => told,
    report: (work, problem) => {
      if (problem !== null) troubles.set(work, problem);
      else if (!troubles.delete(work)) return;
      const next = worst();
      if (next?.retryable === told?.retryable) return;
      told = next;
      if (next === null) log.info({}, "serving again");
      else log.warn({ code: next.code, problem: next.message }, "not serving");
      for (const listener of listeners) listener(next);
    },
    on: (listener) => {
      listeners.add(listener);
      listener(told);
      return () => void listeners.delete(listener);
    },
  };
}
