import { cp, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { repository } from "../support/repository.ts";
import type { Bed } from "./bed.ts";
import type { Benchmark, BenchmarkOptions, Outcome } from "./benchmark.ts";
import { expectThings } from "./expectation.ts";
import { expectMirrors, type FanoutMode } from "./fanout-targets.ts";
import { runIngest } from "./ingest-run.ts";
import { createPlan } from "./plan.ts";
import { untilSettled } from "./settled.ts";
import { type Verdict, verify } from "./verify.ts";

/** Every datapoint derives one for another entity: how fast those are applied, against what comes in without deriving. */
export const fanout: Benchmark = {
  name: "fanout",
  summary: "every datapoint derives one for another entity, of its own shard and of another",
  fields: [
    { key: "own_ratio", unit: "", what: "applied derived datapoints/s for the own shard, over ingest's processed/s" },
    { key: "other_ratio", unit: "", what: "the same for another shard" },
  ],
  bounds: () => [
    { key: "own_ratio", sense: "at least", limit: 0.6 },
    { key: "other_ratio", sense: "at least", limit: 0.35 },
  ],
  run,
};

async function run(bed: Bed, options: BenchmarkOptions): Promise<Outcome> {
  const entities = options.entities ?? 100_000;
  options.note("ingest");
  const { report, verdict } = await runIngest(bed, entities);
  const ingestPerS = report.sent / report.processedS;
  options.note("deriving for the own shard");
  const own = await runMode(bed, "own", entities);
  options.note("deriving for another shard");
  const other = await runMode(bed, "other", entities);
  const rates = [ingestPerS, own.perS, other.perS].map(Math.round);
  return {
    values: { own_ratio: own.perS / ingestPerS, other_ratio: other.perS / ingestPerS },
    remarks: [`ingest ${rates[0]} processed/s; derived and applied: own shard ${rates[1]}/s, other ${rates[2]}/s`],
    verdicts: [verdict, ...own.verdicts, ...other.verdicts],
  };
}

async function runMode(bed: Bed, mode: FanoutMode, entities: number) {
  const database = await bed.createDatabase();
  const configDir = await writeConfig(mode, entities);
  try {
    const node = await bed.startNode({ databaseUrl: database.url, configDir });
    await bed.checkpoint();
    const plan = createPlan(entities);
    const report = await bed.send(node, plan);
    await untilSettled(node.address);
    const seconds = (Date.now() - report.startedAt) / 1000;
    await bed.stopNode(node);
    const verdicts = await bed.withConnection(database.url, async (connection): Promise<Verdict[]> => {
      const things = await verify(connection, expectThings([{ plan, sent: report.sent }]));
      return [things, await verify(connection, expectMirrors(mode, entities))];
    });
    return { perS: report.sent / seconds, verdicts };
  } finally {
    await rm(configDir, { recursive: true, force: true });
    await database.close();
  }
}

/** The configuration directory, with what the module has to know. */
async function writeConfig(mode: FanoutMode, things: number): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "starling-fanout-"));
  await cp(join(repository, "test/bench/fanout-config"), folder, { recursive: true });
  const modulesDir = join(repository, "test/bench/modules");
  await writeFile(
    join(folder, "processing_core.yml"),
    `worker_processes: 1\nmodules_dir: ${modulesDir}\nenabled_modules: [deriver]\n`,
  );
  await mkdir(join(folder, "modules"));
  await writeFile(join(folder, "modules/deriver.yml"), `mode: ${mode}\nthings: ${things}\n`);
  return folder;
}
