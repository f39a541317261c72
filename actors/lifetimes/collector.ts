import { withDeadline } from "../../proto/deadline.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import type { Counters } from "../counters.ts";
import { linkTask } from "../links/link-change.ts";
import { repeat } from "../repeat.ts";
import type { NextDeadline } from "../schedules/schedule-cron.ts";
import { sendTasks } from "../sessions/call-tasks.ts";
import type { DueLook } from "../store/store.ts";
import { collectWeak, type WeakCollectorOptions } from "./weak-collector.ts";

export interface CollectorOptions extends WeakCollectorOptions {
  readonly next: NextDeadline | null;
  readonly counters: Counters;
  readonly log: {
    info(fields: object, message: string): void;
    warn(fields: object, message: string): void;
  };
}

/**
 * Ends the lives of entities whose time has come. It asks every entity that PostgreSQL names, by an entry in its log (R21), and
 * the entity itself knows whether its life is over when its turn comes (`lifetime.ts`). So nothing here has to survive; who is
 * asked twice, or too early, says no. Weak entities, which know nothing of the links to them, are found by `weak-collector.ts`.
 */
export interface Collector {
  /** Asks everybody whose time has come by now; returns how many. What cannot be read or sent raises its error. */
  collect(): Promise<number>;
  /** Ends after the batch at hand. Idempotent. */
  close(): Promise<void>;
}

/** Entities in one batch. */
const pageMax = 400;
const closeWithinMs = 10_000;

/** Starts a collector. */
export function startCollector(options: CollectorOptions): Collector {
  const { next, clock, wall, counters, log } = options;
  const stop = new AbortController();
  const collect = async (): Promise<number> => {
    const asked = (await collectAged(options, stop.signal)) + (await collectWeak(options, stop.signal));
    counters.add("lifetimes_looked_at", asked);
    if (asked > 0) log.info({ entities: asked }, "lifetimes looked at");
    return asked;
  };
  const timer = repeat({
    ...{ next, run: collect, clock, wall },
    onFailure: (error) => {
      counters.add("collector_failures");
      log.warn({ err: error }, "entities could not be collected: tried again at the next time");
    },
  });
  return {
    collect,
    close: async () => {
      stop.abort(new StarlingError("UNAVAILABLE", "the node stops"));
      const rest = { clock, deadlineMs: closeWithinMs, text: "the collector did not end" };
      await withDeadline(timer.close(), rest).catch(() => {});
    },
  };
}

/** Asks those that have a time to live. */
async function collectAged(options: CollectorOptions, signal: AbortSignal): Promise<number> {
  const { lifetimes, model, shards, wall } = options;
  // Whoever has to be looked at again later has a later time then: everybody is asked once.
  const by = wall();
  let asked = 0;
  let after: DueLook | null = null;
  while (!signal.aborted) {
    const page: readonly DueLook[] = await lifetimes.toLookAt(shards(), by, after, pageMax);
    const tasks = page.flatMap(({ type, eid }) => linkTask(model, type, eid, { kind: "expire", since: null }) ?? []);
    await sendTasks(options, tasks, signal);
    asked += tasks.length;
    after = page.at(-1) ?? null;
    if (page.length < pageMax) break;
  }
  return asked;
}
