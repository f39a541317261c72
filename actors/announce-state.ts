import type { Membership, MembershipLog } from "../cluster/membership/membership.ts";
import { toStarlingError } from "../proto/starling-error.ts";

type Announcer = Pick<Membership, "announce">;
type AnnounceLog = Pick<MembershipLog, "warn">;

/** Each takes some seconds when the coordinator is away. */
const announceTries = 12;

/** The coordinator may be away just now; what is announced stays wanted meanwhile. */
export async function announceServing(membership: Announcer, log: AnnounceLog): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await membership.announce("serving");
    } catch (error) {
      const { retryable, message } = toStarlingError(error);
      if (!retryable || attempt >= announceTries) throw error;
      log.warn({ problem: message }, "waiting for the coordinator");
    }
  }
}

/**
 * Until the others know that this node leaves, nobody takes what it releases: the coordinator is waited for, as long as this
 * node `isNeeded`, for a minute at most. That is said once. Raises UNAVAILABLE when it did not hear of it.
 */
export async function announceLeaving(membership: Announcer, isNeeded: () => boolean, log: AnnounceLog): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await membership.announce("leaving");
    } catch (error) {
      const { retryable, message } = toStarlingError(error);
      if (!retryable || attempt >= announceTries || !isNeeded()) throw error;
      if (attempt === 1) log.warn({ problem: message }, "serving on, waiting for etcd to hand the shards over");
    }
  }
}
