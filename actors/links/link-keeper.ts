import type { Model } from "../../modules/model.ts";
import { atBeat, type Clock } from "../../proto/clock.ts";
import { withDeadline } from "../../proto/deadline.ts";
import type { ShardId } from "../../proto/ids.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import type { Counters } from "../counters.ts";
import type { PartTask } from "../lane/part.ts";
import { sendTasks, type TaskSender } from "../sessions/call-tasks.ts";
import type { LinkEnd, Obituaries, Obituary, ShardPlace } from "../store/stored-link.ts";
import { linkTask } from "./link-change.ts";

/**
 * Has sources forget their links to entities that were deleted. The flush of a deletion leaves an obituary with the place where
 * every log ended at that time; whoever owns its shard looks, when the time has come, who links to the dead, tells them, and
 * buries it.
 *
 *  N1  The time has come when every shard has settled the place that the obituary names for it: all that stood in its log then
 *      is applied and flushed. So the index over the targets shows every link that is to be forgotten; none is on its way.
 *  N2  A source is told up to when its links are to be forgotten: the time of the last entry that its log had at the deletion.
 *      Within a log time never goes back (R6), so all that stood there is forgotten, and what came in later, in the log's own
 *      time, stays. The places are read before anybody is told that the deletion was processed: so what is set after that
 *      stays, if its shard's clock has moved on by a millisecond.
 *  N3  An obituary is buried when every source has been told, durably. Until then its links are looked for again, by this node
 *      or the next owner of its shard: to be told twice changes nothing (K5), so nobody has to remember who was told.
 *
 * Nothing waits for this: neither a watermark, nor a deletion, nor the next life of what was deleted. A shard that does not
 * get on, or owes something from before the deletion (R16), delays it.
 */
export interface LinkKeeper {
  /** Has everything forgotten whose time has come; returns how many obituaries are left. */
  keep(): Promise<number>;
  /** Ends after the batch at hand. Idempotent. */
  close(): Promise<void>;
}

export interface LinkKeeperOptions extends TaskSender {
  readonly obituaries: Obituaries;
  readonly model: Model;
  /**
   * The shards whose obituaries this node looks after, one list for as long as they are the same; two nodes with the same one
   * do each other's work, and no harm.
   */
  readonly shards: () => readonly ShardId[];
  /** A number that changes when there may be new ones. */
  readonly news: () => number;
  readonly clock: Clock;
  readonly counters: Counters;
  readonly log: { warn(fields: object, message: string): void };
}

/** How often to look for news; at what is known to be there, at first and after a while; and without any reason. */
const newsEveryMs = 1_000;
const againEveryMs = 500;
const againMaxMs = 4_000;
const lookEveryMs = 60_000;
const obituariesMax = 100;
/** Sources in one batch. */
const pageMax = 400;
const closeWithinMs = 1_000;

/** Starts a keeper. */
export function startLinkKeeper(options: LinkKeeperOptions): LinkKeeper {
  const { clock, counters, log, news, shards } = options;
  const stop = new AbortController();
  let running: Promise<void> = Promise.resolve();
  let seen: { readonly news: number; readonly shards: readonly ShardId[] } = { news: 0, shards: [] };
  let lookAt = 0;
  let againMs = againEveryMs;
  const look = async (): Promise<number> => {
    const state = { news: news(), shards: shards() };
    const isKnown = state.news === seen.news && state.shards === seen.shards;
    if (isKnown && clock.now() < lookAt) return newsEveryMs;
    try {
      const left = await keepAll(options, stop.signal);
      againMs = isKnown ? Math.min(2 * againMs, againMaxMs) : againEveryMs;
      seen = state;
      lookAt = clock.now() + (left > 0 ? 0 : lookEveryMs);
      return left > 0 ? againMs : newsEveryMs;
    } catch (error) {
      if (!stop.signal.aborted) {
        counters.add("link_keeper_failures");
        log.warn({ err: error }, "links to deleted entities could not be forgotten: tried again");
      }
      return newsEveryMs;
    }
  };
  let cancel = (): void => {};
  const wait = (ms: number): void => {
    if (stop.signal.aborted) return;
    cancel = atBeat(clock, ms, () => {
      running = look().then(wait);
    });
  };
  wait(newsEveryMs);
  return {
    keep: () => keepAll(options, stop.signal),
    close: async () => {
      stop.abort(new StarlingError("UNAVAILABLE", "the node stops"));
      cancel();
      const rest = { clock, deadlineMs: closeWithinMs, text: "the upkeep of links did not end" };
      // What is on its way is told again by whoever owns the shard next.
      await withDeadline(running, rest).catch(() => {});
    },
  };
}

async function keepAll(options: LinkKeeperOptions, signal: AbortSignal): Promise<number> {
  const { obituaries, shards, counters } = options;
  const found = await obituaries.obituaries(shards(), obituariesMax);
  if (found.length === 0) return 0;
  // Read after the obituaries: places only move on.
  const settled = new Map((await obituaries.places()).map((place) => [place.shard, place]));
  let left = found.length;
  for (const obituary of found) {
    if (signal.aborted) break;
    if (!isDue(obituary, settled)) continue;
    await unlinkAll(options, obituary, signal);
    if (signal.aborted) break;
    await obituaries.bury(obituary);
    counters.add("obituaries_buried");
    left--;
  }
  return left === 0 && found.length === obituariesMax ? 1 : left;
}

/** Whether all that stood in any log at the deletion is in the tables (N1). */
function isDue({ places }: Obituary, settled: ReadonlyMap<ShardId, ShardPlace>): boolean {
  for (const [shard, { seq }] of places) if ((settled.get(shard)?.settled ?? 0) < seq) return false;
  return true;
}

/** Tells every source of links to the dead, some at a time. */
async function unlinkAll(options: LinkKeeperOptions, obituary: Obituary, signal: AbortSignal): Promise<void> {
  const waiting: PartTask[] = [];
  for (const dead of obituary.dead) {
    let after: LinkEnd | null = null;
    while (!signal.aborted) {
      const page: readonly LinkEnd[] = await options.obituaries.referrers(dead, after, pageMax);
      waiting.push(...page.flatMap((source) => taskFor(options, obituary, dead, source) ?? []));
      if (waiting.length >= pageMax) await sendTasks(options, waiting.splice(0), signal);
      after = page.at(-1) ?? null;
      if (page.length < pageMax) break;
    }
  }
  if (!signal.aborted) await sendTasks(options, waiting, signal);
}

function taskFor(
  { model, shardOf }: LinkKeeperOptions,
  { places }: Obituary,
  dead: Obituary["dead"][number],
  { attr, type, eid }: LinkEnd,
): PartTask | null {
  const end = places.get(shardOf(type, eid));
  // Of a shard that had no log then all is newer.
  return end === undefined ? null : linkTask(model, type, eid, { kind: "unlink", attr, ...dead, before: end.at });
}
