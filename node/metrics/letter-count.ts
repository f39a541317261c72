import type { Queries } from "../../actors/store/store.ts";
import type { Clock } from "../../proto/clock.ts";
import type { ShardId } from "../../proto/ids.ts";

/** How many dead letters are open, by shard. */
export interface LetterCount {
  /** As last counted, and counts anew if that is long ago; null: not known. Never waits. */
  read(queries: Pick<Queries, "countDeadLetters">): ReadonlyMap<ShardId, number> | null;
}

/** The table may be long: it is counted only when somebody asks, and rests so many times as long as that took, within these bounds. */
const restTimes = 300;
const restMinMs = 1_000;
const restMaxMs = 15_000;

export function createLetterCount(clock: Clock): LetterCount {
  let known: ReadonlyMap<ShardId, number> | null = null;
  let dueAt = Number.NEGATIVE_INFINITY;
  let counting = false;
  return {
    read: (queries) => {
      if (!counting && clock.now() >= dueAt) {
        counting = true;
        const askedAt = clock.now();
        void queries
          .countDeadLetters()
          // What failed is counted as an error of PostgreSQL; here it means that nothing is known.
          .then(
            (counts) => counts,
            () => null,
          )
          .then((counts) => {
            known = counts;
            counting = false;
            const restMs = restTimes * (clock.now() - askedAt);
            dueAt = clock.now() + Math.min(restMaxMs, Math.max(restMinMs, restMs));
          });
      }
      return known;
    },
  };
}
