import { expect, test } from "vitest";
import { createSnapshotPace } from "../../../actors/snapshots/snapshot-pace.ts";
import { createManualClock } from "../../support/manual-clock.ts";

/* A node of which `busy` of the time an append is on its way; a page takes a tenth of a second. */
function play(busy: number, share: number) {
  const clock = createManualClock();
  let begun = 0;
  let running = 0;
  let atOnce = 0;
  const pace = createSnapshotPace({ clock, writeSeconds: () => (busy * clock.now()) / 1000, share });
  const make = () => {
    begun++;
    running++;
    atOnce = Math.max(atOnce, running);
    return new Promise<void>((resolve) => {
      clock.after(100, () => {
        running--;
        resolve();
      });
    });
  };
  const visit = async (): Promise<void> => {
    for (;;) await pace.page(make);
  };
  return {
    clock,
    /** Pages that four visits begin in ten seconds, and how many went on at once. */
    measure: async () => {
      await clock.advance(1_000);
      for (let i = 0; i < 4; i++) void visit();
      await clock.advance(10_000);
      return { begun, atOnce };
    },
  };
}

test("where nothing is appended all visits go on at once", async () => {
  expect(await play(0, 0.4).measure()).toMatchObject({ atOnce: 4 });
  expect((await play(0.01, 0.4).measure()).begun).toBeGreaterThanOrEqual(396);
});

test("beside appends pages come one after another and take their share of the time", async () => {
  const { begun, atOnce } = await play(1, 0.4).measure();
  expect(atOnce).toBe(1);
  expect(begun).toBeGreaterThanOrEqual(39);
  expect(begun).toBeLessThanOrEqual(41);
  expect((await play(1, 0.1).measure()).begun).toBeLessThanOrEqual(12);
});

test("a node that appends half of the time rests half as long", async () => {
  const { begun } = await play(0.5, 0.4).measure();
  expect(begun).toBeGreaterThanOrEqual(56);
  expect(begun).toBeLessThanOrEqual(58);
});

test("several lanes at once are no more than all of the time, and a page that fails frees its turn", async () => {
  const { begun } = await play(2, 0.4).measure();
  expect(begun).toBeGreaterThanOrEqual(39);
  const clock = createManualClock();
  const pace = createSnapshotPace({ clock, writeSeconds: () => clock.now() / 1000, share: 0.4 });
  await clock.advance(1_000);
  await expect(pace.page(() => Promise.reject(new Error("no")))).rejects.toThrow("no");
  const next = pace.page(async () => "yes");
  await clock.advance(1_000);
  expect(await next).toBe("yes");
});
