import { expect, test } from "vitest";
import { createAilment } from "../../cluster/ailment.ts";
import { createManualClock } from "../support/manual-clock.ts";

function watched() {
  const clock = createManualClock();
  const told: string[] = [];
  return { clock, told, ailment: createAilment({ clock, onChange: (state) => told.push(state) }) };
}

test("trouble that lasts for two seconds is told, shorter trouble is not", async () => {
  const { clock, told, ailment } = watched();
  ailment.report("trouble");
  await clock.advance(1_900);
  ailment.report("fine");
  await clock.advance(10_000);
  expect(told).toEqual([]);
  ailment.report("trouble");
  ailment.report("trouble");
  await clock.advance(2_000);
  expect(told).toEqual(["ailing"]);
});

test("it is over when everything has succeeded for five seconds, counted anew after every failure", async () => {
  const { clock, told, ailment } = watched();
  ailment.report("trouble");
  await clock.advance(2_000);
  ailment.report("fine");
  await clock.advance(4_900);
  ailment.report("trouble");
  await clock.advance(60_000);
  expect(told).toEqual(["ailing"]);
  ailment.report("fine");
  await clock.advance(5_000);
  expect(told).toEqual(["ailing", "well"]);
  expect(ailment.state).toBe("well");
  expect(clock.timers).toBe(0);
});

test("after its end nothing is told, and nothing waits", async () => {
  const { clock, told, ailment } = watched();
  ailment.report("trouble");
  ailment.close();
  ailment.report("fine");
  ailment.report("trouble");
  expect(clock.timers).toBe(0);
  await clock.advance(10_000);
  expect(told).toEqual([]);
});
