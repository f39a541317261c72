import { expect, test } from "vitest";
import { SendWindow } from "../../proto/send-window.ts";
import { StarlingError } from "../../proto/starling-error.ts";

/** A window of three batches and ten datapoints, and the names of those that have found a place, in order. */
function start() {
  const window = new SendWindow({ batches: 3, items: 10 });
  const entered: string[] = [];
  const enter = (name: string, items: number): void => {
    const place = window.enter(items);
    if (place === null) entered.push(name);
    else
      void place.then(
        () => entered.push(name),
        ({ code }: StarlingError) => entered.push(`${name}: ${code}`),
      );
  };
  return { window, entered, enter };
}

test("small batches take a place each, as many as there are", async () => {
  const { window, entered, enter } = start();
  for (const name of ["a", "b", "c", "d"]) enter(name, 1);
  expect(entered).toEqual(["a", "b", "c"]);
  window.leave(1);
  await Promise.resolve();
  expect(entered).toEqual(["a", "b", "c", "d"]);
});

test("of large ones two are on their way whatever they hold, and a third when there is room", async () => {
  const { window, entered, enter } = start();
  for (const name of ["a", "b"]) enter(name, 8);
  for (const name of ["c", "d"]) enter(name, 1);
  expect(entered).toEqual(["a", "b"]);
  window.leave(8);
  await Promise.resolve();
  // Beside the eight of b there is room for both.
  expect(entered).toEqual(["a", "b", "c", "d"]);
});

test("whoever comes later does not overtake, and a failure reaches all who wait", async () => {
  const { window, entered, enter } = start();
  enter("a", 8);
  enter("b", 8);
  enter("c", 8);
  enter("d", 1);
  window.leave(8);
  await Promise.resolve();
  expect(entered).toEqual(["a", "b", "c"]);
  window.fail(new StarlingError("UNAVAILABLE", "no node answers"));
  await Promise.resolve();
  expect(entered).toEqual(["a", "b", "c", "d: UNAVAILABLE"]);
  expect(window.isWaitedFor).toBe(false);
});
