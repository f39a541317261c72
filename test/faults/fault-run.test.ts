import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { seedOfRun } from "../support/random.ts";
import type { Fault } from "./fault-plan.ts";
import { runFaults } from "./fault-run.ts";

/** A short run of what `npm run faults` plays at length, with faults that are always the same. */
const plan: readonly Fault[] = [
  { kind: "kill", atMs: 2_000, lastsMs: 1_000, nodes: [0, 1], manner: "rude" },
  { kind: "cut-one-way", atMs: 6_000, lastsMs: 3_000, nodes: [1, 2], manner: "rude" },
  { kind: "restart-postgres", atMs: 10_500, lastsMs: 500, nodes: [0, 1], manner: "rude" },
];

test("links, lifetimes, snapshot runs and what they derive outlive nodes, links and PostgreSQL", async () => {
  const seed = seedOfRun();
  console.log(`fault run: seed ${seed}`);
  const folder = await mkdtemp(join(tmpdir(), "starling-fault-run-"));
  const small = { loadMs: 14_000, datapoints: 1_500, rate: 200 };
  const { violations, logs, snapshots, queuePeakPercent } = await runFaults({ seed, run: 1, plan, folder, ...small });
  if (logs !== "") console.error(`the nodes' logs are in ${logs}`);
  expect(violations).toEqual([]);
  expect(queuePeakPercent).toBeGreaterThan(0);
  expect(snapshots.finished).toBeGreaterThan(1);
  expect(snapshots.told).toBeGreaterThan(snapshots.finished);
}, 300_000);
