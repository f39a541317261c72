import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { repository } from "../support/repository.ts";
import type { Bed } from "./bed.ts";
import type { Benchmark, BenchmarkOptions, Outcome } from "./benchmark.ts";
import type { ComponentReport } from "./component-process.ts";

const heapMb = 512;

/**
 * One component of linked entities, whose records together do not fit into the heap of the process that computes it: each
 * entity is linked to the next one, and the second of two hooks needs of that what the first one made.
 */
export const component: Benchmark = {
  name: "component",
  summary: "a snapshot run of one component, whose records of 100 kB come to four times the heap",
  fields: [
    { key: "component_entities", unit: "entities", what: "all linked with each other" },
    { key: "records_mb", unit: "MB", what: "of their records" },
    { key: "times_heap", unit: "", what: `that over a heap of ${heapMb} MB` },
    { key: "seconds", unit: "s", what: "a full run" },
    { key: "records_mb_per_s", unit: "MB/s", what: "records over that" },
    { key: "rss_peak_mb", unit: "MB", what: "of the process" },
  ],
  bounds: () => [{ key: "times_heap", sense: "at least", limit: 4 }],
  run,
};

const defaultEntities = 21_500;

async function run(bed: Bed, options: BenchmarkOptions): Promise<Outcome> {
  const entities = options.entities ?? defaultEntities;
  const database = await bed.createDatabase();
  try {
    options.note(`writing ${entities} records and computing them in a process of ${heapMb} MB`);
    const report = await compute(database.url, entities, options.signal);
    const megabytes = report.bytes / 1_000_000;
    return {
      values: {
        component_entities: report.componentMax,
        records_mb: megabytes,
        times_heap: report.bytes / (heapMb * 1024 * 1024),
        seconds: report.seconds,
        records_mb_per_s: megabytes / report.seconds,
        rss_peak_mb: report.rssPeakMb,
      },
      remarks: [`${report.hookCalls} calls of hooks`],
      verdicts: [
        {
          ...{ entities, history: 0, lost: entities - report.written, duplicated: 0 },
          differences: report.differences + Math.abs(entities - report.componentMax),
          first: [],
        },
      ],
    };
  } finally {
    await database.close();
  }
}

async function compute(url: string, entities: number, signal: AbortSignal): Promise<ComponentReport> {
  const program = join(repository, "dist/test/bench/component-process.js");
  const child = spawn(process.execPath, [`--max-old-space-size=${heapMb}`, program, url, String(entities)], {
    ...{ signal, stdio: ["ignore", "pipe", "inherit"] },
  });
  let printed = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    printed += text;
  });
  const [code] = (await once(child, "close")) as [number | null];
  if (code !== 0) throw new Error(`the process that computes the component ended with ${code}`);
  return JSON.parse(printed) as ComponentReport;
}
