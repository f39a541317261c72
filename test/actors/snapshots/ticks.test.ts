import { expect, test } from "vitest";
import type { Effect } from "../../../actors/lane/lane.ts";
import { createRandom, seedOfRun } from "../../support/random.ts";
import { playDeaths } from "../lane/protocol-deaths.ts";
import { writeFound } from "../lane/protocol-script.ts";
import { playAtRandom } from "./ticks-random.ts";
import { createTicksScript, type Pages } from "./ticks-script.ts";

const seed = seedOfRun();
/** `npm run crashes` lets successors die, too. */
const nested = process.env.STARLING_TEST_DEATHS === "3" ? 2 : 1;

type Slow = Effect["kind"] | null;

async function playWithoutDeath(slow: Slow, pages: Pages): Promise<string> {
  const script = createTicksScript(slow, pages);
  return writeFound(await script.live(script.begin(), 0, () => {}));
}

async function playAll(nested: number, slow: Slow): Promise<number> {
  const wanted = await playWithoutDeath(null, new Map());
  const { deaths } = await playDeaths(createTicksScript(slow), nested, (found, after) => {
    expect(writeFound(found), `after deaths at ${after.join(", ")}`).toBe(wanted);
  });
  return deaths;
}

test("pages of a tick are what the log up to the marks makes of entities, while the log goes on (C1–C3)", async () => {
  const pages: Pages = new Map();
  await playWithoutDeath(null, pages);
  expect(pages.get(1)).toBeGreaterThan(15);
  expect(pages.get(2)).toBeGreaterThan(5);
});

test(`and they are so in any order of the world, whoever dies (C1–C4, seed ${seed})`, async () => {
  for (let round = 0; round < 30; round++) {
    const pages: Pages = new Map();
    await playAtRandom(createRandom(seed + round), pages);
    expect([...pages.values()].reduce((sum, count) => sum + count, 0)).toBeGreaterThan(0);
  }
}, 300_000);

test.each([
  ["nothing is", null],
  ["appends are", "append"],
  ["flushes are", "flush"],
  ["deliveries are", "deliver"],
] satisfies [string, Slow][])(
  "a node that dies after any single effect changes no page (C4), while %s slow",
  async (_, slow) => {
    expect(await playAll(nested, slow)).toBeGreaterThan(150);
  },
  1_200_000,
);
