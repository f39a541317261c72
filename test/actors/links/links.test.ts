import { expect, test } from "vitest";
import type { Effect } from "../../../actors/lane/lane.ts";
import { playDeaths } from "../lane/protocol-deaths.ts";
import { createLinksScript } from "./links-script.ts";

type Slow = Effect["kind"] | null;

async function playWithoutDeath(slow: Slow): Promise<string[]> {
  const script = createLinksScript(slow);
  return script.live(script.begin(), 0, () => {});
}

async function playAll(nested: number, slow: Slow): Promise<number> {
  const wanted = await playWithoutDeath(null);
  const { deaths } = await playDeaths(createLinksScript(slow), nested, (found, after) => {
    expect(found, `after deaths at ${after.join(", ")}`).toEqual(wanted);
  });
  return deaths;
}

test("a link is a row of its source that tells what the record tells, and of what was deleted nothing is left (K1–K6)", async () => {
  expect(await playWithoutDeath(null)).toEqual([
    "bus b1 at → stop s1: 1000–3000",
    "bus b1 line → line l2: plain",
    "bus b1 near → stop s4: 1000–1100, 9000–9000",
    "bus b1 stops → stop s4: plain",
    "bus b2 line → line l1: plain",
    "record: bus b1 line → line l2",
    "record: bus b1 stops → stop s4",
    "record: bus b2 line → line l1",
  ]);
});

test("a node that dies after any single effect changes no link (K1–K6)", async () => {
  expect(await playAll(1, null)).toBeGreaterThan(60);
});

test.each([
  ["nothing is", null],
  ["appends are", "append"],
  ["flushes are", "flush"],
] satisfies [string, Slow][])(
  "nor does one whose successor dies too, at any effect, while %s slow",
  async (_, slow) => {
    expect(await playAll(2, slow)).toBeGreaterThan(500);
  },
  600_000,
);
