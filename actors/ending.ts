import type { Clock } from "../proto/clock.ts";
import { withDeadline } from "../proto/deadline.ts";
import { StarlingError } from "../proto/starling-error.ts";

export interface EndingOptions {
  readonly clock: Clock;
  /** How long all of it may take. */
  readonly withinMs: number;
  /** Asks each database whether it is there, one round trip. */
  readonly pings: readonly (() => Promise<void>)[];
  /** A database is not waited for any more, and why. */
  readonly onGivenUp?: (database: number, problem: StarlingError) => void;
}

/** What one thing that a node does in its end may wait for. */
export interface EndingWait {
  /** What did not happen in time: the text of the error. */
  readonly text: string;
  /** Less than the whole. */
  readonly withinMs?: number;
  /** The database whose loss ends it; default: whichever is first. */
  readonly database?: number;
}

/**
 * The end of a node. It waits for a database as long as that one answers, whatever failed before, and is the one that it was; and for
 * everything together no longer than the whole may take: then who started the process would kill it. What it gives up stands in the
 * log, as far as PostgreSQL has kept that, and the next owner does it again.
 */
export interface Ending {
  /** The end begins: from now on the time counts, and databases are asked. Idempotent. */
  begin(): void;
  /** What the work comes to; raises STORE when the database is silent, FENCED when it is another, DEADLINE when the time is over. */
  wait<T>(work: Promise<T>, wait: EndingWait): Promise<T>;
  /** Asks nobody any more. */
  close(): void;
}

/** How long a node may take to end: less than service managers wait until they kill it. */
export const endWithinMs = 45_000;

const askEveryMs = 500;
/** So many times in turn, which are two seconds. Counted, so that a loop that stood still does not take itself for a silent database. */
const missesMax = 4;

/** An end that has not begun. */
export function createEnding({ clock, withinMs, pings, onGivenUp }: EndingOptions): Ending {
  const given = pings.map(() => new AbortController());
  const any = new AbortController();
  const cancels = new Set<() => void>();
  let beganAt: number | null = null;

  const after = (ms: number, run: () => void): void => {
    const cancel = clock.after(ms, () => {
      cancels.delete(cancel);
      run();
    });
    cancels.add(cancel);
  };
  const giveUp = (database: number, problem: StarlingError): void => {
    given[database]?.abort(problem);
    any.abort(problem);
    onGivenUp?.(database, problem);
  };
  const watch = (ping: () => Promise<void>, database: number): void => {
    let misses = 0;
    let status: "idle" | "asked" | "given up" = "idle";
    const end = (problem: StarlingError): void => {
      if (status === "given up") return;
      status = "given up";
      giveUp(database, problem);
    };
    const look = (): void => {
      if (status === "given up") return;
      if (status === "asked") misses++;
      else ask();
      if (misses >= missesMax) end(new StarlingError("STORE", "postgresql does not answer"));
      else after(askEveryMs, look);
    };
    const answered = (missed: number): void => {
      misses = missed;
      if (status === "asked") status = "idle";
    };
    const ask = (): void => {
      status = "asked";
      ping().then(
        () => answered(0),
        (error: unknown) => {
          // In another world there is nothing of this node's to write (R25).
          if (error instanceof StarlingError && error.code === "FENCED") end(error);
          else answered(misses + 1);
        },
      );
    };
    look();
  };
  const leftMs = (): number => (beganAt === null ? withinMs : Math.max(0, beganAt + withinMs - clock.now()));
  return {
    begin: () => {
      if (beganAt !== null) return;
      beganAt = clock.now();
      for (const [database, ping] of pings.entries()) watch(ping, database);
    },
    wait: (work, { text, withinMs: onlyMs = withinMs, database }) => {
      const { signal } = (database === undefined ? any : given[database]) ?? any;
      return withDeadline(work, { clock, deadlineMs: Math.round(Math.min(onlyMs, leftMs())), text, signal });
    },
    close: () => {
      for (const cancel of cancels) cancel();
      cancels.clear();
    },
  };
}
