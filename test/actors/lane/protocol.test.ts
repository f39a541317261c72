import { expect, test } from "vitest";
import type { Effect } from "../../../actors/lane/lane.ts";
import { playDeaths } from "./protocol-deaths.ts";
import { createProtocolScript } from "./protocol-play.ts";
import { batches, type Found, writeFound } from "./protocol-script.ts";

/*
 * Deaths of nodes in the middle of the script: after every single effect, and the successor's after every single effect of
 * its own. Nothing is left out and nothing strided: deaths that leave the same world count as one (`protocol-deaths.ts`).
 * In four orders of the world's answers, since appends, flushes and deliveries do not wait for each other.
 * `npm run crashes` goes one death deeper, for minutes.
 */
const nested = process.env.STARLING_TEST_DEATHS === "3" ? 3 : 2;

type Slow = Effect["kind"] | null;

/** What the world is slow at; nothing: effects come in the order in which they were told. */
const slows: readonly (readonly [string, Slow])[] = [
  ["nothing is", null],
  ["appends are", "append"],
  ["flushes are", "flush"],
  ["deliveries are", "deliver"],
];

async function playWithoutDeath(slow: Slow): Promise<Found> {
  const script = createProtocolScript(slow);
  return script.live(script.begin(), 0, () => {});
}

async function playAll(deathsEach: number, slow: Slow): Promise<number> {
  const wanted = writeFound(await playWithoutDeath(null));
  const { deaths } = await playDeaths(createProtocolScript(slow), deathsEach, (found, after) => {
    expect(writeFound(found), `after deaths at ${after.join(", ")}`).toBe(wanted);
  });
  return deaths;
}

test("without a death every datapoint, sent or derived, is in the log once and in the state (P1, P3)", async () => {
  const { logged, state } = await playWithoutDeath(null);
  expect([...logged.values()].every((times) => times === 1)).toBe(true);
  // 29 batches of `a`, those of s5 refused; each other one derives one `own` and two `seen`.
  const sent = batches.flat().filter((task) => !task.delete);
  const kept = sent.filter((task) => task.eid !== "s5");
  const ofA = kept.filter((task) => task.datapoints[0]?.attr === "a").length;
  const ofO = kept.length - ofA;
  expect(logged.size).toBe(sent.length + 3 * ofA + ofO);
  expect([...state.keys()].some((key) => key.startsWith("src s5"))).toBe(false);
});

test("a node that dies after any single effect loses nothing and doubles nothing (P1–P3, I1–I5)", async () => {
  expect(await playAll(1, null)).toBeGreaterThan(150);
});

test.each(slows)(
  "nor does one whose successor dies too, at any effect of its recovery (twice nested), while %s slow",
  async (_, slow) => {
    expect(await playAll(nested, slow)).toBeGreaterThan(2000);
  },
  1_200_000,
);
