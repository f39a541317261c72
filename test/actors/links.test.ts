import { expect, test } from "vitest";
import type { Effect } from "../../actors/lane.ts";
import { createLinksScript } from "./links-script.ts";
import { playDeaths } from "./protocol-deaths.ts";

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

test("both ends of every link tell the same as the records, and of what was deleted nothing is left (K1–K5)", async () => {
  const found = await playWithoutDeath(null);
  expect(found.filter((line) => !line.startsWith("told"))).toEqual([
    "bus b1 at → stop s1: 1000–3000 (source, target)",
    "bus b1 line → line l2: plain (source, target)",
    "bus b1 near → stop s4: 1000–1100, 9000–9000 (source, target)",
    "bus b1 stops → stop s4: plain (source, target)",
    "bus b2 line → line l1: plain (source, target)",
    "record: bus b1 line → line l2",
    "record: bus b1 stops → stop s4",
    "record: bus b2 line → line l1",
  ]);
  const told = found.filter((line) => line.startsWith("told") && line.includes(" stop s1 "));
  expect(told).toEqual([
    'told 1 times: stop s1 ["refer","at","bus","b1",1000,2000]',
    'told 1 times: stop s1 ["refer","at","bus","b1",1500,3000]',
    'told 1 times: stop s1 ["refer","next","stop","s2"]',
    'told 1 times: stop s1 ["refer","next","stop","s5"]',
    'told 1 times: stop s1 ["refer","stops","bus","b1"]',
    'told 1 times: stop s1 ["unrefer","next","stop","s2"]',
    'told 1 times: stop s1 ["unrefer","next","stop","s5"]',
    'told 1 times: stop s1 ["unrefer","stops","bus","b1"]',
  ]);
});

test("a node that dies after any single effect changes no link (K1–K5)", async () => {
  expect(await playAll(1, null)).toBeGreaterThan(100);
});

test.each([
  ["nothing is", null],
  ["appends are", "append"],
  ["flushes are", "flush"],
  ["deliveries are", "deliver"],
  ["reads of links are", "read-links"],
] satisfies [string, Slow][])(
  "nor does one whose successor dies too, at any effect, while %s slow",
  async (_, slow) => {
    expect(await playAll(2, slow)).toBeGreaterThan(500);
  },
  600_000,
);
