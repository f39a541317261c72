import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { checkKillFacts, type KillFacts } from "../support/kill-checker.ts";
import { openKillDatabase } from "../support/kill-facts.ts";
import { startKillLoad } from "../support/kill-load.ts";
import { freePort, type KillHits, killNodes } from "../support/kill-run.ts";
import { startNodeProcess } from "../support/node-process.ts";
import { testDatabases } from "../support/postgres.ts";
import { createRandom, seedOfRun } from "../support/random.ts";
import { repository } from "../support/repository.ts";

/** A longer run: STARLING_KILLS=200. The seed repeats the load and the places, not the moments at which things happen. */
const kills = Number(process.env.STARLING_KILLS ?? 22);
const configDir = join(repository, "test/support/kill-config");
// Few entities in a flush, and short lives in memory: much of the work is half done at any moment.
const settings = [
  ...["--entity-shards", "16", "--system-shards", "2"],
  ...["--flush-max-entities", "25", "--passivate-after-ms", "200"],
];

test(
  "a node that dies at any fail-point loses nothing, doubles nothing, and keeps every entity's order",
  async ({ onTestFailed, onTestFinished }) => {
    const seed = seedOfRun();
    onTestFailed(() => console.error(`repeat with STARLING_SEED=${seed}`));
    console.log(`kill test: seed ${seed}, ${kills} kills`);
    const random = createRandom(seed);
    const dataDir = await mkdtemp(join(tmpdir(), "starling-kill-"));
    const databases = await testDatabases();
    onTestFinished(async () => {
      await rm(dataDir, { recursive: true });
      await databases.close();
    });
    const address = `127.0.0.1:${await freePort()}`;
    const node = { configDir, dataDir, ...databases.settings, flags: ["--listen", address, ...settings] };
    const load = startKillLoad({ address, seed });
    const hits = await killNodes({ node, kills, random, failed: load.failed });

    await using look = openKillDatabase(databases.urls);
    const last = await startNodeProcess(node);
    onTestFinished(() => last.kill());
    await Promise.race([load.finish(), load.failed]);
    await expect.poll(() => look.openLogs(), { timeout: 120_000, interval: 100 }).toEqual([]);
    expect(await last.stop()).toBe(0);
    const facts = { ...(await look.facts()), sent: load.sent, acknowledged: load.acknowledged };
    console.log(summaryOf(facts, hits));
    expect(checkKillFacts(facts).slice(0, 20)).toEqual([]);
    expect([...hits].filter(([, count]) => count === 0)).toEqual([]);
  },
  180_000 + kills * 10_000,
);

function summaryOf({ sent, raw, entities, refused }: KillFacts, hits: KillHits): string {
  const table = [...hits].map(([place, count]) => `  ${place.padEnd(28)} ${count}`).join("\n");
  const counts = `${sent.length} datapoints sent, ${raw.length} in the log, ${entities.length} entities, ${refused.length} tasks refused`;
  return `${counts}; kills by fail-point:\n${table}`;
}
