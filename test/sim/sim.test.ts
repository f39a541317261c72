import { expect, test } from "vitest";
import { runSim } from "./run.ts";
import { outside } from "./scheduler.ts";

const seeds = Array.from({ length: 10 }, (_, index) => 100 + index);

test("clusters under faults lose, double and disorder nothing, and come to rest (P1–P5)", async () => {
  for (const seed of seeds) {
    const { violations, counts } = await outside(() => runSim(seed));
    expect(violations, `seed ${seed}`).toEqual([]);
    expect(counts.nodes, `seed ${seed}`).toBeGreaterThanOrEqual(3);
    expect(counts.datapoints, `seed ${seed}`).toBeGreaterThanOrEqual(500);
    expect(counts.faultsInFlight, `seed ${seed}`).toBeGreaterThanOrEqual(5);
  }
}, 600_000);

test("one seed gives one trace, twice", async () => {
  const [one, again, other] = [
    await outside(() => runSim(7)),
    await outside(() => runSim(7)),
    await outside(() => runSim(8)),
  ];
  expect(again.traceHash).toBe(one.traceHash);
  expect(again.events).toBe(one.events);
  expect(other.traceHash).not.toBe(one.traceHash);
}, 300_000);
