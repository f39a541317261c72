import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { createCounters } from "../../../actors/counters.ts";
import { createHistogram } from "../../../actors/histogram.ts";
import { settingsSchema } from "../../../node/config/settings.ts";
import { exposeMetrics } from "../../../node/metrics/exposition.ts";
import type { Metric, MetricWorld } from "../../../node/metrics/metric.ts";
import { metricTable } from "../../../node/metrics/metric-table.ts";
import { readExposition } from "../../support/exposition.ts";
import { complaintsOfPromtool } from "../../support/promtool.ts";
import { repository } from "../../support/repository.ts";

const usage = { cpuSeconds: 1.5, rssBytes: 2, heapUsedBytes: 3, heapTotalBytes: 4, externalBytes: 5, startedAt: 6 };

function createWorld(): MetricWorld {
  const loopDelay = createHistogram([0.01, 0.1]);
  const settings = settingsSchema.parse({});
  const parts = { counters: createCounters(), settings, loopDelay, usage: () => usage, version: "0.1.0", node: null };
  return { ...parts, openLetters: () => null };
}

test("a node that is still starting tells every metric by its name, type and meaning", async () => {
  const text = await exposeMetrics(metricTable, createWorld());
  expect(complaintsOfPromtool(text)).toBe("");
  const read = readExposition(text);
  const heads = (all: readonly { readonly name: string; readonly type: string; readonly help: string }[]) =>
    all.map(({ name, type, help }) => [name, type, help]);
  expect(heads(read)).toEqual(heads(metricTable));
});

test("counters are told as they stand, by their labels", async () => {
  const world = createWorld();
  world.counters.add("repeats", 3);
  world.counters.add("refused/GAP", 2);
  world.counters.add("refused/BUSY");
  const read = readExposition(await exposeMetrics(metricTable, world));
  const samples = (name: string) => read.find((metric) => metric.name === name)?.samples;
  expect(samples("starling_repeats_total")).toMatchObject([{ labels: {}, value: 3 }]);
  expect(samples("starling_parts_refused_total")).toMatchObject([
    { labels: { code: "GAP" }, value: 2 },
    { labels: { code: "BUSY" }, value: 1 },
  ]);
});

test("a histogram's buckets hold what is not above their bounds", async () => {
  const world = createWorld();
  for (const value of [0.01, 0.05, 0.1, 7]) world.loopDelay.observe(value);
  world.loopDelay.observe(0.02, 16);
  const read = readExposition(await exposeMetrics(metricTable, world));
  const { samples = [] } = read.find(({ name }) => name === "starling_loop_delay_seconds") ?? {};
  expect(samples.map(({ labels, value }) => [labels.le, value])).toEqual([
    ["0.01", 1],
    ["0.1", 19],
    ["+Inf", 20],
    [undefined, expect.closeTo(7.48, 6)],
    [undefined, 20],
  ]);
});

test("labels may hold any text", async () => {
  const odd: Metric = {
    name: "starling_odd",
    type: "gauge",
    help: "any text",
    labels: ["hook"],
    read: () => [{ labels: { hook: 'a "b"\\c\nd' }, value: 1 }],
  };
  const [metric] = readExposition(await exposeMetrics([odd], createWorld()));
  expect(metric?.samples[0]?.labels.hook).toBe('a \\"b\\"\\\\c\\nd');
});

test("the reader of this test refuses what is not valid", () => {
  const head = "# HELP a_total words\n# TYPE a_total counter\n";
  expect(() => readExposition(`${head}a_total 1\n`)).not.toThrow();
  for (const bad of [
    "a_total 1",
    "a_total one\n",
    "b_total 1\n",
    "a_total 1\na_total 2\n",
    'a_total{b="c} 1\n',
    "a_total -1\n",
  ]) {
    expect(() => readExposition(`${head}${bad}`), bad).toThrow();
  }
  const buckets = (...lines: string[]) => `# HELP h words\n# TYPE h histogram\n${lines.join("\n")}\n`;
  const rest = ["h_sum 1", "h_count 2"];
  expect(() => readExposition(buckets('h_bucket{le="1"} 1', 'h_bucket{le="+Inf"} 2', ...rest))).not.toThrow();
  expect(() => readExposition(buckets('h_bucket{le="1"} 3', 'h_bucket{le="+Inf"} 2', ...rest))).toThrow("add up");
  expect(() => readExposition(buckets('h_bucket{le="+Inf"} 1', ...rest))).toThrow("add up");
});

test("the README's table is the table of metrics", async () => {
  const readme = await readFile(join(repository, "README.md"), "utf8");
  const rows = [...readme.matchAll(/^\| `((?:starling|process)_\w+)` +\| (\w+) +\| (.*?) +\| (.*?) +\|$/gm)];
  const code = (labels: readonly string[]) => labels.map((label) => `\`${label}\``).join(", ");
  expect(rows.map(([, name, type, labels, help]) => [name, type, labels?.trim(), help])).toEqual(
    metricTable.map(({ name, type, labels, help }) => [name, type, code(labels), help]),
  );
});
