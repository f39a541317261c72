import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { Connection } from "../../actors/store/connection.ts";
import { repository } from "../support/repository.ts";
import type { Bed } from "./bed.ts";
import type { BenchmarkOptions } from "./benchmark.ts";
import { createPlan, passLength } from "./plan.ts";

/** What a sender at 30 % of the full rate waits for, while nothing else goes on and while one full run follows another. */
export interface SnapshotLoad {
  readonly beforeMs: number;
  readonly duringMs: number;
  readonly rate: number;
  readonly runs: number;
}

const loopS = 15;
const share = 0.3;

export async function measureLoad(bed: Bed, entities: number, options: BenchmarkOptions): Promise<SnapshotLoad> {
  const database = await bed.createDatabase();
  try {
    const configDir = join(repository, "test/bench/snapshots-config");
    const node = await bed.startNode({ databaseUrl: database.url, configDir });
    options.note(`sending ${entities} entities to a node`);
    const plan = createPlan(entities, { generation: 1, seed: 5 });
    const full = await bed.send(node, plan);
    await bed.checkpoint();
    const rate = Math.round((share * full.sent) / full.processedS);
    const passes = Math.ceil((rate * loopS) / passLength(plan)) + 1;
    const loop = { ...plan, rate, durationS: loopS, passes };
    options.note(`open loop at ${rate} datapoints/s`);
    const before = await bed.send(node, { ...loop, generation: 10 });
    options.note("the same during snapshot runs");
    const runs = repeatRuns(bed, database.url);
    const during = await bed.send(node, { ...loop, generation: 20 });
    const count = await runs.end();
    await bed.stopNode(node);
    return { beforeMs: before.ackP99Ms, duringMs: during.ackP99Ms, rate, runs: count };
  } finally {
    await database.close();
  }
}

const pollMs = 100;

/** Asks for one full run after another. */
function repeatRuns(bed: Bed, url: string) {
  let status: "running" | "ended" = "running";
  const text = "select count(*)::int as count from starling.snapshot_run where status = 'finished'";
  const work = bed.withConnection(url, async (connection: Connection) => {
    const count = async (): Promise<number> => (await connection.query<{ count: number }>(text))[0]?.count ?? 0;
    for (let run = 0; status === "running"; run++) {
      const request = "insert into starling.snapshot_request (id, kind, whole) values ($1, 'run', true)";
      await connection.query(request, [`bench ${run}`]);
      while (status === "running" && (await count()) <= run) await delay(pollMs);
    }
    return count();
  });
  return {
    end: (): Promise<number> => {
      status = "ended";
      return work;
    },
  };
}
