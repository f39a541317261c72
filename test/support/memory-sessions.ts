import { changedKey, closedSession, heldByAnother } from "../../actors/store/session.ts";
import type { Store } from "../../actors/store/store.ts";
import type { MemoryDurable } from "./memory-durable.ts";

/** The sessions of a store in memory; time has no effect on them. */
export function createMemorySessions({
  sessions,
  holders,
  hashes,
}: Pick<MemoryDurable, "sessions" | "holders" | "hashes">): Pick<
  Store,
  "openSession" | "closeSession" | "useSession" | "findClosed"
> {
  return {
    openSession: async (session, { named, holder, hash, begins }) => {
      if (!begins && !sessions.has(session)) throw closedSession(session);
      // As in PostgreSQL, where it is the second of its first opening.
      const number = hash === undefined ? 1 : 1_000 + sessions.size;
      const known = sessions.get(session) ?? { session, named, closed: false, opening: 0, number };
      const held = holders.get(session) ?? holder;
      if (held !== null && holder !== null && held !== holder) throw heldByAnother(session);
      if (held !== null) holders.set(session, held);
      const kept = hashes.get(session) ?? (known.opening === 0 ? hash : undefined);
      if (kept !== undefined && hash !== undefined && kept !== hash) throw changedKey(session);
      if (kept !== undefined) hashes.set(session, kept);
      const opened = { ...known, opening: known.opening + 1 };
      sessions.set(session, opened);
      return opened;
    },
    closeSession: async (session) => {
      const known = sessions.get(session) ?? { session, named: false, opening: 0, number: 1 };
      sessions.set(session, { ...known, closed: true });
    },
    findClosed: async (asked) => asked.filter((session) => sessions.get(session)?.closed === true),
    useSession: async () => {},
  };
}
