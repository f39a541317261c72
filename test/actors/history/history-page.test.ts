import { expect, it } from "vitest";
import { readPages, readPagesWithin, writePages } from "../../../actors/history/history-page.ts";
import { mergeRuns, observe } from "../../../actors/history/history-run.ts";
import { createRandom, seedOfRun } from "../../support/random.ts";
import { pieceOf, ruleOf } from "./history-rules.ts";

const seed = seedOfRun();

it(`what pages hold within a time is what whole pages hold there, but for gaps (seed ${seed})`, () => {
  const random = createRandom(seed);
  const rule = ruleOf({ preMs: 40, postMs: 60, multiValue: true });
  for (let round = 0; round < 50; round++) {
    // Before and after 1970, and with fractions, of which the text is another.
    const origin = [-500, 0, 1_767_225_600_000][random.between(0, 2)] ?? 0;
    const observed = Array.from({ length: random.between(1, 300) }, () => {
      const t1 = origin + random.between(0, 10_000) / (random.next() < 0.1 ? 8 : 1);
      const value = ['"a"', '"tab\\\\t"', "3", '{"a":[1,2]}'][random.between(0, 3)] ?? "";
      return observe(value, t1, t1 + random.between(0, 50), random.between(1, 10) / 10);
    });
    const pages = writePages(mergeRuns(rule, [], observed)).map(({ body }) => body);
    const from = origin + random.between(-100, 10_000);
    const until = from + random.between(0, 500);
    const wanted = readPages(pages).filter(({ t1, t2 }) => t2 >= from && t1 <= until);
    expect(readPagesWithin(pages, { from, until })).toEqual(wanted.map(pieceOf));
  }
});
