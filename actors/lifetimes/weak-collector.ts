import type { EntitySpec, Model } from "../../modules/model.ts";
import type { Clock } from "../../proto/clock.ts";
import type { ShardId } from "../../proto/ids.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import { linksTo } from "../links/link-attributes.ts";
import { linkTask } from "../links/link-change.ts";
import { sendTasks, type TaskSender } from "../sessions/call-tasks.ts";
import type { EntityKey, Lifetimes } from "../store/store.ts";
import type { ShardPlace } from "../store/stored-link.ts";

/**
 * Ends the lives of weak entities: of those that no link leads to (reference 9.2). A link counts from when it was set until it is
 * removed, an observed one until its validity ends; one from the entity itself counts, too.
 *
 *  W1  Who goes was linked to by nobody at two looks at the index over the targets, some seconds apart; so neither a link that
 *      moves from one source to another, nor one that comes a moment after its target, is taken for none.
 *  W2  No link is overlooked that was acknowledged before the second look was prepared, nor one that was recorded as the answer
 *      of a hook before the first, wherever it is on its way. For where every log ended is read first; then comes the first
 *      look; then all shards are waited for until they have settled up to there and what they derived for others up to there is
 *      durable. Where every log ends is read again, which is behind all of these; and the second look is when that is settled.
 *  W3  The entity itself is asked, by an entry in its log (R21): it ends if nothing has changed it since before the first look.
 *      So who came back meanwhile stays, and so does who is written to together with a link that comes later than W2 says.
 *  W4  It ends as by any deletion. So a link that came after what W2 speaks of, and was not written at the second look, is
 *      forgotten by its source, as are those that were set before a person deletes their target (`link-keeper.ts`): none is
 *      left that leads to what is gone. One that is set later stays, and leads to the next life.
 *
 * What is known between the looks is in memory alone: a node that dies leaves it to the next time. A shard that does not get on
 * delays all, as nobody knows what it holds.
 */
export interface WeakCollectorOptions extends TaskSender {
  readonly lifetimes: Lifetimes;
  readonly model: Model;
  /** The shards whose entities this node collects. */
  readonly shards: () => readonly ShardId[];
  /** Between the two looks; default 5 s. */
  readonly patienceMs?: number;
  readonly clock: Clock;
  /** Unix ms. */
  readonly wall: () => number;
}

const defaultPatienceMs = 5_000;
/** How often to look whether the shards have settled, and for how long. */
const lookEveryMs = 500;
const settleWithinMs = 60_000;
/** Entities in one question, in one pair of looks, and in one batch. */
const pageMax = 1_000;
const suspectsMax = 10_000;
const batchMax = 400;

/** Asks those whose time has come to end; returns how many. Raises DEADLINE when a shard does not settle, and what the store raises. */
export async function collectWeak(options: WeakCollectorOptions, signal: AbortSignal): Promise<number> {
  const { model, shards, lifetimes } = options;
  let asked = 0;
  for (const spec of model.entities.values()) {
    if (spec.lifetime.type !== "weak") continue;
    for (let after: string | null = ""; after !== null && !signal.aborted; ) {
      const places = new Map((await lifetimes.places()).map((place) => [place.shard, place]));
      const suspects: Suspects = await findSuspects(options, spec, shards(), after);
      if (suspects.keys.length > 0) asked += await endAll(options, spec, suspects.keys, places, signal);
      after = suspects.next;
    }
  }
  return asked;
}

interface Suspects {
  /** Those that nothing links to. */
  readonly keys: readonly EntityKey[];
  /** The eid after which the others follow; null: these were the last. */
  readonly next: string | null;
}

async function findSuspects(
  options: WeakCollectorOptions,
  spec: EntitySpec,
  shards: readonly ShardId[],
  after: string,
): Promise<Suspects> {
  const keys: EntityKey[] = [];
  for (let from = after; ; ) {
    const page = await options.lifetimes.inhabitants({ shards, type: spec.id, after: from, limit: pageMax });
    keys.push(...(await unreferred(options, spec, page)));
    const last = page.at(-1);
    if (last === undefined || page.length < pageMax) return { keys, next: null };
    if (keys.length >= suspectsMax) return { keys, next: last.eid };
    from = last.eid;
  }
}

/** Those of a page that no link leads to, now or later. */
async function unreferred(
  { lifetimes, model, wall }: WeakCollectorOptions,
  spec: EntitySpec,
  page: readonly EntityKey[],
): Promise<EntityKey[]> {
  const eids = page.map(({ eid }) => eid);
  const query = { type: spec.id, eids, at: wall(), attributes: linksTo(model, spec) };
  const referred = new Set(await lifetimes.referred(query));
  return page.filter(({ eid }) => !referred.has(eid));
}

/** The second look, and the end of those that are still linked to by nobody. `places`: from before the first one. */
async function endAll(
  options: WeakCollectorOptions,
  spec: EntitySpec,
  suspects: readonly EntityKey[],
  places: ReadonlyMap<ShardId, ShardPlace>,
  signal: AbortSignal,
): Promise<number> {
  const { lifetimes, model, clock, patienceMs = defaultPatienceMs } = options;
  await pause(clock, patienceMs, signal);
  await settled(options, [...places.values()], ({ settled, delivered }) => Math.min(settled, delivered), signal);
  await settled(options, await lifetimes.places(), ({ settled }) => settled, signal);
  let asked = 0;
  for (let index = 0; index < suspects.length && !signal.aborted; index += batchMax) {
    const weak = await unreferred(options, spec, suspects.slice(index, index + batchMax));
    const tasks = weak.flatMap(({ shard, type, eid }) => {
      const since = places.get(shard)?.seq;
      return (since !== undefined && linkTask(model, type, eid, { kind: "expire", since })) || [];
    });
    await sendTasks(options, tasks, signal);
    asked += tasks.length;
  }
  return asked;
}

/** Resolves when every shard has got as far as it was. */
async function settled(
  { lifetimes, clock }: WeakCollectorOptions,
  goals: readonly ShardPlace[],
  placeOf: (place: ShardPlace) => number,
  signal: AbortSignal,
): Promise<void> {
  const until = clock.now() + settleWithinMs;
  for (;;) {
    const places = new Map((await lifetimes.places()).map((place) => [place.shard, placeOf(place)]));
    const behind = goals.find(({ shard, seq }) => (places.get(shard) ?? 0) < seq);
    if (behind === undefined) return;
    if (clock.now() >= until) {
      const { shard, seq } = behind;
      const text = `shard ${shard} has settled ${places.get(shard) ?? 0} of ${seq}: weak entities wait for it`;
      throw new StarlingError("DEADLINE", text);
    }
    await pause(clock, lookEveryMs, signal);
  }
}

/** Raises the signal's reason when that is aborted. */
function pause(clock: Clock, ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => {
      cancel();
      reject(signal.reason);
    };
    const cancel = clock.after(ms, () => {
      signal.removeEventListener("abort", onAbort);
      resolve();
    });
    if (signal.aborted) onAbort();
    else signal.addEventListener("abort", onAbort, { once: true });
  });
}
