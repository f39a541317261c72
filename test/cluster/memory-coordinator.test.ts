import { expect, it } from "vitest";
import { type CoordinatorFault, createMemoryCoordinator } from "../../cluster/memory-coordinator.ts";
import { createManualClock } from "../support/manual-clock.ts";

const write = (key: string, lease: string | null = null) => [{ kind: "put", key, value: "v", lease } as const];

it("a call meets the fault that its client has, and no other client's", async () => {
  const clock = createManualClock();
  const coordinator = createMemoryCoordinator({ clock });
  const ends: string[] = [];
  const faults: Readonly<Record<string, CoordinatorFault>> = {
    refused: { kind: "refused" },
    broken: { kind: "broken" },
    lost: { kind: "slow", beforeMs: 0, afterMs: Number.POSITIVE_INFINITY },
    hanging: { kind: "slow", beforeMs: Number.POSITIVE_INFINITY, afterMs: 0 },
    late: { kind: "slow", beforeMs: 5000, afterMs: 0 },
    slow: { kind: "slow", beforeMs: 500, afterMs: 500 },
  };
  for (const [name, fault] of Object.entries(faults)) {
    const note = (end: string) => () => void ends.push(`${name} ${end} at ${clock.now()}`);
    coordinator
      .client(() => fault)
      .commit([], write(name))
      .then(note("done"), note("failed"));
  }
  await clock.advance(10_000);
  expect(ends).toEqual([
    "refused failed at 0",
    "broken failed at 0",
    "slow done at 1000",
    "lost failed at 2000",
    "hanging failed at 2000",
    "late failed at 2000",
  ]);
  expect((await coordinator.list("")).entries.map(({ key }) => key)).toEqual(["broken", "late", "lost", "slow"]);
});

it("only what changes something raises the revision, and only that is hinted at", async () => {
  const clock = createManualClock();
  const coordinator = createMemoryCoordinator({ clock });
  let hints = 0;
  const stop = coordinator.watch("a/", () => void hints++);
  const first = await coordinator.commit([], write("a/1"));
  const refused = await coordinator.commit([{ key: "a/1", revision: 0 }], write("a/1"));
  const absent = await coordinator.commit([], [{ kind: "delete", key: "a/2" }]);
  await coordinator.commit([], write("b/1"));
  expect([first.done, refused.done, absent.done]).toEqual([true, false, true]);
  expect([refused.revision, absent.revision]).toEqual([first.revision, first.revision]);
  expect(hints).toBe(1);
  stop();
  await coordinator.commit([], write("a/1"));
  await clock.advance(0);
  expect(hints).toBe(1);
});

it("a key belongs to the lease of its last put alone", async () => {
  const clock = createManualClock();
  const coordinator = createMemoryCoordinator({ clock });
  const [one, two] = [await coordinator.grant(2000), await coordinator.grant(1)];
  await coordinator.commit([], write("moved", one));
  await coordinator.commit([], write("moved", null));
  await coordinator.commit([], write("kept", one));
  await coordinator.commit([], write("taken", one));
  await coordinator.commit([], write("taken", two));
  await coordinator.revoke(one);
  expect((await coordinator.list("")).entries.map(({ key }) => key)).toEqual(["moved", "taken"]);
  await clock.advance(2000);
  expect((await coordinator.list("")).entries.map(({ key }) => key)).toEqual(["moved"]);
  expect(clock.timers).toBe(0);
});

it("a wiped coordinator knows nothing, begins anew, and tells who watches", async () => {
  const clock = createManualClock();
  const coordinator = createMemoryCoordinator({ clock, identity: "one" });
  const lease = await coordinator.grant(2000);
  await coordinator.commit([], write("a", lease));
  let hints = 0;
  coordinator.watch("x", () => void hints++);
  coordinator.wipe("two");
  await expect(coordinator.keepAlive(lease)).rejects.toMatchObject({ code: "NOT_FOUND" });
  expect(await coordinator.list("")).toEqual({ entries: [], revision: 1 });
  expect([await coordinator.identity(), hints, clock.timers]).toEqual(["two", 1, 0]);
});
