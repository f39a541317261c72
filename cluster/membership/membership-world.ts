import { StarlingError } from "../../proto/starling-error.ts";
import type { Coordinator, Listing } from "../coordinator.ts";

/** Listing keys, only as long as the coordinator is the one that it was. */
export interface WorldCheck {
  /** Raises UNAVAILABLE also when the coordinator is another one, or has lost what it knew. */
  list(prefix: string): Promise<Listing>;
  /** The coordinator may have been exchanged since: its identity is asked for before the next list. */
  doubt(): void;
}

/**
 * A coordinator that was started anew on an empty disk knows of no node, and would let a second cluster grow beside the first
 * one. It is told by its identity and by its revisions, which never go back.
 */
export function createWorldCheck(coordinator: Coordinator): WorldCheck {
  let identity: string | null = null;
  let revision = 0;
  let status: "trusted" | "doubted" = "doubted";
  return {
    list: async (prefix) => {
      if (status === "doubted") {
        status = "trusted";
        identity = await sameIdentity(coordinator, identity).catch((error: unknown) => {
          status = "doubted";
          throw error;
        });
      }
      const listing = await coordinator.list(prefix);
      if (listing.revision < revision) {
        throw new StarlingError("UNAVAILABLE", `the coordinator lost its data: ${listing.revision} after ${revision}`);
      }
      revision = listing.revision;
      return listing;
    },
    doubt: () => {
      status = "doubted";
    },
  };
}

async function sameIdentity(coordinator: Coordinator, former: string | null): Promise<string> {
  const identity = await coordinator.identity();
  if (former === null || former === identity) return identity;
  throw new StarlingError("UNAVAILABLE", `the coordinator is another one: ${identity}, not ${former}`);
}
