import { expect, test } from "vitest";
import { createLaneTimers } from "../../../actors/lane/lane-timers.ts";
import { createManualClock } from "../../support/manual-clock.ts";

test("a slot does what it was told last, and no more; what others do later stays", async () => {
  const clock = createManualClock();
  const { after, slot, end } = createLaneTimers(clock);
  const done: string[] = [];
  const [one, other] = [slot(), slot()];
  const later = (text: string) => () => void done.push(`${text} at ${clock.now()}`);
  after(10, later("a"));
  one(10, later("late"));
  one(3, later("b"));
  other(4, later("c"));
  expect(clock.timers).toBe(3);
  await clock.advance(20);
  one(5, later("d"));
  await clock.advance(20);
  expect(done).toEqual(["b at 3", "c at 4", "a at 10", "d at 25"]);
  one(5, later("e"));
  end();
  other(5, later("f"));
  await clock.advance(20);
  expect(done).toHaveLength(4);
});
