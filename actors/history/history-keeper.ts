import type { Model } from "../../modules/model.ts";
import type { Clock } from "../../proto/clock.ts";
import { withDeadline } from "../../proto/deadline.ts";
import type { ShardId } from "../../proto/ids.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import type { Counters } from "../counters.ts";
import { repeat } from "../repeat.ts";
import type { NextDeadline } from "../schedules/schedule-cron.ts";
import type { EntityKey, Histories, HistoryFold } from "../store/store.ts";
import { planFold, planWindows } from "./history-fold.ts";
import { historyRuleOf } from "./history-rule.ts";

export interface HistoryKeeperOptions {
  readonly histories: Histories;
  readonly model: Model;
  /** The shards whose histories this node folds; two nodes that fold the same one do each other's work, and no harm. */
  readonly shards: () => readonly ShardId[];
  /** When to fold, and when to drop what is too old; null: never. */
  readonly foldAt: NextDeadline | null;
  readonly cleanAt: NextDeadline | null;
  readonly clock: Clock;
  /** Unix ms. */
  readonly wall: () => number;
  readonly counters: Counters;
  readonly log: {
    info(fields: object, message: string): void;
    warn(fields: object, message: string): void;
  };
}

/** Folds and cleans histories in the background, until it is closed. */
export interface HistoryKeeper {
  /** Takes everything that flushes have added by now. What cannot be read or written raises its error. */
  fold(): Promise<void>;
  /** Drops what is older than `max_age`. */
  clean(): Promise<void>;
  /** Ends after the batch at hand. Idempotent. */
  close(): Promise<void>;
}

/** Entities in one fold, and rows of each: a long history of rows takes several. */
const entitiesMax = 100;
const rowsMax = 200;
const pagesMax = 1_000;
const closeWithinMs = 10_000;

/** Starts a keeper. */
export function startHistoryKeeper(options: HistoryKeeperOptions): HistoryKeeper {
  const stop = new AbortController();
  const fold = () => foldAll(options, stop.signal);
  const clean = () => cleanAll(options, stop.signal);
  const { clock, wall, counters, log } = options;
  const keep = (next: NextDeadline | null, name: string, run: () => Promise<void>) =>
    repeat({
      ...{ next, run, clock, wall },
      onFailure: (error) => {
        counters.add(`history_failures/${name}`);
        log.warn({ err: error }, `histories could not be ${name}ed: tried again at the next time`);
      },
    });
  const timers = [keep(options.foldAt, "fold", fold), keep(options.cleanAt, "clean", clean)];
  return {
    fold,
    clean,
    close: async () => {
      stop.abort(new StarlingError("UNAVAILABLE", "the node stops"));
      const ended = Promise.all(timers.map((timer) => timer.close()));
      const rest = { clock, deadlineMs: closeWithinMs, text: "the upkeep of histories did not end" };
      // What is on its way happens as a whole or not at all.
      await withDeadline(ended, rest).catch(() => {});
    },
  };
}

async function foldAll(options: HistoryKeeperOptions, signal: AbortSignal): Promise<void> {
  const { histories, shards, counters, log } = options;
  let rows = 0;
  for (const shard of shards()) {
    let after: EntityKey = { shard, type: "", eid: "" };
    for (;;) {
      if (signal.aborted) return;
      const keys = await histories.unfolded(after, entitiesMax);
      rows += await foldKeys(options, keys, signal);
      const last = keys.at(-1);
      if (keys.length < entitiesMax || last === undefined) break;
      after = last;
    }
  }
  if (rows === 0) return;
  counters.add("history/folded_rows", rows);
  log.info({ rows }, "histories folded");
}

/** Folds until these entities have no rows, and returns how many there were. */
async function foldKeys(
  options: HistoryKeeperOptions,
  keys: readonly EntityKey[],
  signal: AbortSignal,
): Promise<number> {
  const { histories, counters } = options;
  let folded = 0;
  let left = keys;
  let conflicts = 0;
  while (left.length > 0 && !signal.aborted) {
    const { fold, unfinished } = await planFolds(options, left);
    if (fold.rows.length === 0) break;
    if (await histories.fold(fold)) {
      folded += fold.rows.length;
      counters.add("history/pages_written", fold.add.length);
      left = unfinished;
    } else {
      // Deleted, cleaned or folded by another node meanwhile: what is left is read anew, one entity after another.
      counters.add("history/fold_conflicts");
      if (++conflicts > conflictsMax) break;
      if (left.length > 1) {
        for (const key of left) folded += await foldKeys(options, [key], signal);
        break;
      }
    }
  }
  return folded;
}

/** After so many in a row the entity waits for the next time. */
const conflictsMax = 3;

async function planFolds({ histories, model }: HistoryKeeperOptions, keys: readonly EntityKey[]) {
  const rows = groupByEntity(await histories.historyRows(keys, rowsMax));
  const windows = keys.flatMap((key) => planWindows(model.entities.get(key.type), key, rows.get(textOf(key)) ?? []));
  const pages = groupByEntity(windows.length === 0 ? [] : await histories.historyPages(windows));
  const plans = keys.flatMap((key) => {
    const own = rows.get(textOf(key)) ?? [];
    return own.length === 0 ? [] : [planFold(model.entities.get(key.type), key, own, pages.get(textOf(key)) ?? [])];
  });
  const fold: HistoryFold = {
    rows: plans.flatMap((plan) => plan.rows),
    remove: plans.flatMap((plan) => plan.remove),
    add: plans.flatMap((plan) => plan.add),
  };
  return { fold, unfinished: keys.filter((key) => rows.get(textOf(key))?.length === rowsMax) };
}

function groupByEntity<T extends EntityKey>(items: readonly T[]): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const item of items) {
    const group = groups.get(textOf(item));
    if (group === undefined) groups.set(textOf(item), [item]);
    else group.push(item);
  }
  return groups;
}

function textOf({ type, eid }: EntityKey): string {
  return `${type}\t${eid}`;
}

async function cleanAll(
  { histories, model, wall, counters, log }: HistoryKeeperOptions,
  signal: AbortSignal,
): Promise<void> {
  let pages = 0;
  for (const entity of model.entities.values()) {
    for (const spec of entity.attributeList) {
      const { maxAgeMs } = historyRuleOf(spec);
      if (maxAgeMs === null) continue;
      const request = { type: entity.id, attr: spec.id, before: wall() - maxAgeMs, limit: pagesMax };
      for (let gone = pagesMax; gone === pagesMax && !signal.aborted; pages += gone) {
        gone = await histories.clean(request);
      }
    }
  }
  if (pages === 0) return;
  counters.add("history/cleaned_pages", pages);
  log.info({ pages }, "histories cleaned");
}
