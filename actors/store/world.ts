import { StarlingError } from "../../proto/starling-error.ts";
import type { Connection } from "./connection.ts";
import type { Fence, WriteResult } from "./store.ts";

/**
 * The world of a database is the server's system identifier and its timeline (R25). A copy of the data that was promoted or
 * restored to an earlier time is another world: it may lack what the first one acknowledged, though epochs and seqs look alike.
 *
 * - A session with another world than that of the store's first session runs no statement (`onSession`), so a connection that
 *   comes back elsewhere writes nothing; every so often the store asks on a new one, as the old ones may be with the old server.
 *   When one session has found another world, none runs a statement any more.
 * - Whoever acquires a shard in another world than its last owner did makes its epoch grow by 1,000 (`acquire_2`). The row of
 *   each shard says which that was: some shards may be acquired later than others.
 */
export const worldFunctions = String.raw`
-- The timeline of what is written now; pg_control_checkpoint() still names the old one until the next checkpoint. A
-- server in recovery raises an error of class 55.
create function starling.world_1() returns table (system_identifier text, timeline int) language sql volatile begin atomic
  select c.system_identifier::text, ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int
    from pg_control_system() c;
end;
`;

export interface World {
  readonly systemIdentifier: string;
  readonly timeline: number;
}

/** Knows the world of a store's first session. */
export interface WorldWatch {
  /** What was found; null: no other world was. */
  readonly problem: StarlingError | null;
  /** Raises FENCED in another world; then, and only then, the store is of no more use. */
  check(session: Pick<Connection, "query">): Promise<void>;
}

/** `onOtherWorld` hears of it once. */
export function watchWorld(onOtherWorld: (error: StarlingError) => void): WorldWatch {
  let known: World | null = null;
  let problem: StarlingError | null = null;
  return {
    get problem() {
      return problem;
    },
    check: async (session) => {
      const now = await readWorld(session);
      known ??= now;
      if (now.systemIdentifier === known.systemIdentifier && now.timeline === known.timeline) return;
      const message = `postgresql is another than it was: ${textOf(now)} instead of ${textOf(known)}; this node's shards are of the other`;
      if (problem === null) {
        problem = new StarlingError("FENCED", message);
        onOtherWorld(problem);
      }
      throw problem;
    },
  };
}

/** Needs no table and no function of ours: it is asked before there are any. */
async function readWorld(session: Pick<Connection, "query">): Promise<World> {
  const [row] = await session.query<{ systemIdentifier: string; timeline: number }>(
    `select c.system_identifier::text as "systemIdentifier",
        ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int as timeline
      from pg_control_system() c`,
  );
  if (row === undefined) throw new StarlingError("STORE", "postgresql does not say which server it is");
  return row;
}

/** A write that found another world has lost all of its shards: there the node owns none. */
export function loseElsewhere(fences: readonly Fence[]): (error: unknown) => WriteResult {
  return unlessFenced(() => ({ lost: fences.map(({ shard }) => shard) }));
}

/** What a call comes to in another world, instead of FENCED. */
export function unlessFenced<T>(value: () => T): (error: unknown) => T {
  return (error) => {
    if (error instanceof StarlingError && error.code === "FENCED") return value();
    throw error;
  };
}

function textOf({ systemIdentifier, timeline }: World): string {
  return `system ${systemIdentifier}, timeline ${timeline}`;
}
