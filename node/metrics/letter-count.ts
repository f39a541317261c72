import type { Queries } from "../../actors/store/store.ts";
import type { Clock } from "../../proto/clock.ts";
import type { ShardId } from "../../proto/ids.ts";

/** How many dead letters are open, by shard. */
export interface LetterCount {
  /** As last counted, and counts anew if that is long ago; null: not known. Never waits. */
  read(queries: Pick<Queries, "countDeadLetters">): ReadonlyMap<ShardId, number> | null;
}

/** The table may be long: it is counted only when somebody asks, and no more often than this. */
const everyMs = 15_000;

export function createLetterCount(clock: Clock): LetterCount {
  let known: ReadonlyMap<ShardId, number> | null = null;
  let askedAt = Number.NEGATIVE_INFINITY;
  let counting = false;
  return {
    read: (queries) => {
      if (!counting && clock.now() - askedAt >= everyMs) {
        counting = true;
        askedAt = clock.now();
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
          });
      }
      return known;
    },
  };
}
