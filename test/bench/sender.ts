import { connect } from "../../proto/client.ts";
import { shuffled, thingDatapoint } from "./things.ts";

/**
 * The client process of the benchmarks: sends a plan's datapoints and prints one line of JSON with what it saw. Started as
 * `node sender.js ADDRESS PLAN`, the plan as JSON.
 */
export interface SendPlan {
  readonly entities: number;
  readonly attributes: readonly number[];
  readonly generation: number;
  readonly seed: number;
  readonly batch: number;
  readonly maxInFlight: number;
  /** Datapoints per second of an open loop; null: as fast as credits allow. */
  readonly rate: number | null;
}

export interface SendReport {
  readonly datapoints: number;
  readonly rejected: number;
  readonly ackedS: number;
  readonly processedS: number;
  readonly ackP50Ms: number;
  readonly ackP99Ms: number;
  readonly cpuS: number;
}

async function main(address: string, plan: SendPlan): Promise<SendReport> {
  const count = plan.entities * plan.attributes.length;
  const order = shuffled(count, plan.seed);
  const sentAt = new Float64Array(Math.ceil(count / plan.batch) + 2);
  const latencies: number[] = [];
  let lastDurable = 0;
  const client = await connect({
    address,
    level: "processed",
    maxInFlight: plan.maxInFlight,
    onAck: ({ level, first, last }) => {
      if (level !== "durable") return;
      lastDurable = performance.now();
      for (let number = first; number <= last; number++) latencies.push(lastDurable - (sentAt[number] ?? 0));
    },
  });
  const cpu = process.cpuUsage();
  const startedAt = performance.now();
  for (let at = 0, number = 1; at < count; at += plan.batch, number++) {
    const batch = [];
    for (let i = at; i < Math.min(count, at + plan.batch); i++) {
      const index = order[i] ?? 0;
      const attribute = plan.attributes[Math.floor(index / plan.entities)] ?? 0;
      batch.push(thingDatapoint(index % plan.entities, attribute, plan.generation, plan.entities));
    }
    if (plan.rate !== null) {
      // Open loop: latency counts from the intended time of sending, whatever the queue before it.
      const intended = startedAt + (at / plan.rate) * 1000;
      const wait = intended - performance.now();
      if (wait > 1) await new Promise((resolve) => setTimeout(resolve, wait));
      sentAt[number] = intended;
      void client.write(batch);
    } else {
      sentAt[number] = performance.now();
      await client.write(batch);
    }
  }
  const outcome = await client.flush();
  const processedAt = performance.now();
  const used = process.cpuUsage(cpu);
  await client.close();
  latencies.sort((a, b) => a - b);
  const quantile = (q: number): number =>
    latencies[Math.min(latencies.length - 1, Math.floor(q * latencies.length))] ?? 0;
  return {
    datapoints: outcome.accepted,
    rejected: outcome.rejected,
    ackedS: (lastDurable - startedAt) / 1000,
    processedS: (processedAt - startedAt) / 1000,
    ackP50Ms: quantile(0.5),
    ackP99Ms: quantile(0.99),
    cpuS: (used.user + used.system) / 1e6,
  };
}

const [address = "", plan = "{}"] = process.argv.slice(2);
process.stdout.write(`${JSON.stringify(await main(address, JSON.parse(plan) as SendPlan))}\n`);
