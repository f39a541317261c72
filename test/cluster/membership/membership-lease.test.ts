import { expect, test } from "vitest";
import type { Coordinator, LeaseId } from "../../../cluster/coordinator.ts";
import { createContact } from "../../../cluster/membership/membership-contact.ts";
import { OwnLease } from "../../../cluster/membership/membership-lease.ts";
import { createManualClock } from "../../support/manual-clock.ts";

const leaseTtlMs = 6_000;

/** A coordinator whose answers to some calls come late; it counts a lease's time from when it got the call. */
function createWorld({ grantMs = 0, keepAliveMs = 0 }) {
  const clock = createManualClock();
  const pause = (ms: number) => new Promise<void>((resolve) => clock.after(ms, resolve));
  let granted = 0;
  const calls: Pick<Coordinator, "grant" | "keepAlive" | "revoke"> = {
    grant: async () => {
      granted++;
      await pause(grantMs);
      return String(granted) as LeaseId;
    },
    keepAlive: async () => pause(keepAliveMs),
    revoke: async () => {},
  };
  const lease = new OwnLease({
    ...{ clock, leaseTtlMs, coordinator: calls as Coordinator, contact: createContact(clock, leaseTtlMs) },
    ...{ onLost: () => {}, onProblem: () => {} },
  });
  /** The lease that a call gets at the moment, which it waits for. */
  const acquire = async (): Promise<LeaseId> => {
    const got = lease.acquire();
    await clock.advance(grantMs);
    return await got;
  };
  return { clock, lease, acquire };
}

test("a lease whose keep-alive was answered late may have lapsed by then: its time counts from the sending", async () => {
  const { clock, lease, acquire } = createWorld({ keepAliveMs: 5_000 });
  expect(await acquire()).toBe("1");
  await clock.advance(7_500); // the keep-alive of 2 s was answered at 7 s
  expect(await acquire()).toBe("1");
  await clock.advance(600); // 8.1 s: the lease may have lapsed at 8 s, though the answer came 1.1 s ago
  expect(await acquire()).toBe("2");
  await lease.close();
});

test("so it does for the grant", async () => {
  const { clock, lease, acquire } = createWorld({ grantMs: 3_000, keepAliveMs: 600_000 });
  expect(await acquire()).toBe("1"); // at 3 s
  await clock.advance(2_900);
  expect(await acquire()).toBe("1");
  await clock.advance(200); // 6.1 s after the sending, not yet after the answer
  expect(await acquire()).toBe("2");
  await lease.close();
});
