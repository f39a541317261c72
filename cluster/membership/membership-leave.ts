import { toStarlingError } from "../../proto/starling-error.ts";
import type { Coordinator, Listing } from "../coordinator.ts";
import type { MembershipLog, NodeRecord } from "./membership.ts";
import type { MembershipKeys } from "./membership-keys.ts";
import { deadTtlMs } from "./membership-plan.ts";
import { readSnapshot, writeDeath } from "./membership-snapshot.ts";

export interface Leaving {
  readonly coordinator: Coordinator;
  readonly keys: MembershipKeys;
  readonly self: NodeRecord;
  readonly list: () => Promise<Listing>;
  readonly log: MembershipLog;
}

type ExpelledListener = (reason: string) => Promise<void>;

/** Tells who owned something for a node that it was given up. Never rejects. */
export async function tellAll(
  listeners: Iterable<ExpelledListener>,
  reason: string,
  log: MembershipLog,
): Promise<void> {
  const told = [...listeners].map(async (tell) => tell(reason));
  for (const result of await Promise.allSettled(told)) {
    if (result.status === "rejected") log.error({ error: result.reason }, "listener of expulsion failed");
  }
}

/** What was in hand may still change the record once or twice. */
const tries = 3;

/**
 * Takes a node's record back and says so, which no lapse does: the others need not wait for anything. Never rejects: who
 * cannot say it is found to be gone later.
 */
export async function withdrawRecord({ coordinator, keys, self, list, log }: Leaving): Promise<void> {
  const key = keys.node(self.name);
  try {
    for (let tried = 0; tried < tries; tried++) {
      const holder = readSnapshot(keys, await list()).holders.get(self.name);
      if (holder?.record?.id !== self.id) return;
      const lease = await coordinator.grant(deadTtlMs);
      const value = writeDeath(self.name, "it left", self.id);
      const { done } = await coordinator.commit(
        [{ key, revision: holder.revision }],
        [
          { kind: "delete", key },
          { kind: "put", key: keys.dead(self.id), value, lease },
        ],
      );
      if (done) return;
      await coordinator.revoke(lease);
    }
  } catch (error) {
    log.warn({ node: self.id, problem: toStarlingError(error).message }, "node left without saying so");
  }
}
