import type { Model } from "../modules/model.ts";
import type { Clock } from "../proto/clock.ts";
import { withDeadline } from "../proto/deadline.ts";
import type { ShardId } from "../proto/ids.ts";
import { StarlingError } from "../proto/starling-error.ts";
import { sendTasks, type TaskSender } from "./call-tasks.ts";
import type { Counters } from "./counters.ts";
import { linkTask } from "./link-change.ts";
import { repeat } from "./repeat.ts";
import type { NextDeadline } from "./schedule-cron.ts";
import type { DueLook, Lifetimes } from "./store/store.ts";

export interface CollectorOptions extends TaskSender {
  readonly lifetimes: Lifetimes;
  readonly model: Model;
  /** The shards whose entities this node collects; two nodes with the same one ask twice, which changes nothing. */
  readonly shards: () => readonly ShardId[];
  readonly next: NextDeadline | null;
  readonly clock: Clock;
  /** Unix ms. */
  readonly wall: () => number;
  readonly counters: Counters;
  readonly log: {
    info(fields: object, message: string): void;
    warn(fields: object, message: string): void;
  };
}

/**
 * Ends the lives of entities whose time has come. It decides nothing: it asks every entity that PostgreSQL names, by an entry
 * in its log (R21), and the entity itself knows whether its life is over when its turn comes (`lifetime.ts`). So nothing here
 * has to survive; who is asked twice, or too early, says no.
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
  const collect = () => collectAll(options, stop.signal);
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

async function collectAll(options: CollectorOptions, signal: AbortSignal): Promise<number> {
  const { lifetimes, model, shards, wall, counters, log } = options;
  // Whoever has to be looked at again later has a later time then: everybody is asked once.
  const by = wall();
  let asked = 0;
  let after: DueLook | null = null;
  while (!signal.aborted) {
    const page: readonly DueLook[] = await lifetimes.toLookAt(shards(), by, after, pageMax);
    const tasks = page.flatMap(({ type, eid }) => linkTask(model, type, eid, { kind: "expire" }) ?? []);
    await sendTasks(options, tasks, signal);
    asked += tasks.length;
    after = page.at(-1) ?? null;
    if (page.length < pageMax) break;
  }
  counters.add("lifetimes_looked_at", asked);
  if (asked > 0) log.info({ entities: asked }, "lifetimes looked at");
  return asked;
}
