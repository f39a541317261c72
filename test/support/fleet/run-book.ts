import { createHash } from "node:crypto";
import { toStarlingError } from "../../../proto/starling-error.ts";
import type { ToldRun, ToldSnapshot } from "./run-checker.ts";

/** What readers have been told of runs: a run tells the same to everybody, as often as it is asked. */
export interface RunBook {
  /** Finished runs that were told to their end, by tick. */
  readonly runs: Map<number, ToldRun>;
  /** Runs that failed, by tick: why. */
  readonly failed: Map<number, string>;
  /** What is wrong. */
  readonly problems: string[];
  /** How often a run was told to its end, and how often a question was refused for now or broke off. */
  readonly told: number;
  readonly refused: number;
  /** Reads; what is refused for now is counted, all else is wrong. */
  guard(read: () => Promise<void>): Promise<void>;
  /** A run was told to its end: it has to be what it was told as before. */
  note(tick: number, snapshots: readonly (ToldSnapshot & { readonly tick: number })[]): void;
  /** Snapshots of one type were counted by the cluster, and in what it told. */
  noteCount(tick: number, counts: { readonly count: number; readonly told: number }): void;
}

/** An empty book. */
export function createRunBook(): RunBook {
  const digests = new Map<number, string>();
  const problems: string[] = [];
  let told = 0;
  let refused = 0;
  return {
    ...{ runs: new Map(), failed: new Map(), problems },
    get told() {
      return told;
    },
    get refused() {
      return refused;
    },
    guard: async (read) => {
      try {
        await read();
      } catch (error) {
        const { code, retryable, message } = toStarlingError(error);
        if (!retryable) problems.push(`reading snapshots: ${code}: ${message}`);
        refused += 1;
      }
    },
    note: (tick, snapshots) => {
      if (snapshots.some((one) => one.tick !== tick))
        problems.push(`snapshots of other runs were told with run ${tick}`);
      const text = snapshots.map(({ type, eid, values }) => `${type} ${eid} ${JSON.stringify(values)}`).sort();
      const digest = createHash("sha256").update(text.join("\n")).digest("hex");
      if ((digests.get(tick) ?? digest) !== digest) problems.push(`run ${tick} was told in two ways`);
      digests.set(tick, digest);
      told += 1;
    },
    noteCount: (tick, counts) => {
      if (counts.count !== counts.told)
        problems.push(`run ${tick} counts ${counts.count} lones, and tells ${counts.told}`);
    },
  };
}
