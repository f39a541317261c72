import { setTimeout as delay, setImmediate } from "node:timers/promises";
import { type Client, connect } from "../../proto/client.ts";
import { createPlanOrder, type PlanOrder, passLength, type SendPlan } from "./plan.ts";
import { type ThingDatapoint, thingDatapoint } from "./things.ts";

/**
 * The client process of the benchmarks: sends a plan's datapoints and prints one line of JSON with what it saw. Started as
 * `node sender.js ADDRESS PLAN`, the plan as JSON.
 */
export interface SendReport {
  /** Datapoints. */
  readonly sent: number;
  readonly accepted: number;
  readonly rejected: number;
  /** Unix ms of the first send. */
  readonly startedAt: number;
  /** From the first send to the last durable, and the last processed acknowledgement. */
  readonly ackedS: number;
  readonly processedS: number;
  readonly ackP50Ms: number;
  readonly ackP99Ms: number;
  /** By windows of the plan's length, by time of sending. */
  readonly windows: readonly { readonly p50Ms: number; readonly p99Ms: number }[];
  /** Most batches that were sent and not acknowledged as durable at once. */
  readonly unackedMax: number;
  readonly cpuS: number;
  readonly rssPeakMb: number;
  /** Connections that broke, or could not be made. */
  readonly breaks: readonly string[];
}

interface Progress {
  /** When each batch was sent, by number: in an open loop when it was meant to be. */
  readonly sentAt: number[];
  readonly latencies: { readonly at: number; readonly ms: number }[];
  lastDurable: number;
  acked: number;
  unackedMax: number;
  /** Batches given to the client that are not durable. */
  open: number;
  readonly breaks: string[];
}

const stop = new AbortController();

async function main(address: string, plan: SendPlan): Promise<SendReport> {
  const progress: Progress = {
    sentAt: [],
    latencies: [],
    lastDurable: 0,
    acked: 0,
    unackedMax: 0,
    open: 0,
    breaks: [],
  };
  const { addresses = [address], ownerAware = false, liveMaxBatches } = plan;
  const client = await connect({
    addresses,
    ownerAware,
    level: "processed",
    ...(plan.maxInFlight !== null && { maxInFlight: plan.maxInFlight }),
    onBreak: ({ code, message }) => progress.breaks.push(`${code}: ${message}`),
    onAck: ({ level, first, last }) => {
      if (level !== "durable") return;
      progress.lastDurable = performance.now();
      progress.unackedMax = Math.max(progress.unackedMax, progress.sentAt.length - 1 - progress.acked);
      progress.acked = last;
      for (let number = first; number <= last; number++) {
        const at = progress.sentAt[number] ?? 0;
        progress.latencies.push({ at, ms: progress.lastDurable - at });
        progress.open -= 1;
        if (liveMaxBatches !== undefined) tellAcked(number, at, progress.lastDurable);
      }
    },
  });
  const cpu = process.cpuUsage();
  const startedAt = Date.now();
  const started = performance.now();
  const sent = await sendPlan(client, plan, progress, started);
  const outcome = await client.flush();
  const processedS = (performance.now() - started) / 1000;
  const used = process.cpuUsage(cpu);
  await client.close();
  return {
    sent,
    accepted: outcome.accepted,
    rejected: outcome.rejected,
    startedAt,
    ackedS: (progress.lastDurable - started) / 1000,
    processedS,
    ...quantiles(progress, started, plan.windowS),
    unackedMax: progress.unackedMax,
    cpuS: (used.user + used.system) / 1e6,
    rssPeakMb: process.resourceUsage().maxRSS / 1024,
    breaks: progress.breaks,
  };
}

function tellAcked(number: number, sentMs: number, ackedMs: number): void {
  const unix = (ms: number): string => (performance.timeOrigin + ms).toFixed(3);
  process.stdout.write(`${number} ${unix(sentMs)} ${unix(ackedMs)}\n`);
}

/** Sends; returns how many datapoints. */
async function sendPlan(client: Client, plan: SendPlan, progress: Progress, started: number): Promise<number> {
  const order = createPlanOrder(plan);
  const count = plan.passes * passLength(plan);
  const until = started + (plan.durationS ?? Number.POSITIVE_INFINITY) * 1000;
  progress.sentAt.push(0);
  let failure: unknown = null;
  let sent = 0;
  let skippedMs = 0;
  while (sent < count && performance.now() < until && failure === null && !stop.signal.aborted) {
    if (progress.open >= (plan.liveMaxBatches ?? Number.POSITIVE_INFINITY)) {
      const before = performance.now();
      await delay(10);
      skippedMs += performance.now() - before;
      continue;
    }
    const intended = plan.rate === null ? null : started + skippedMs + (sent / plan.rate) * 1000;
    const batch = createBatch(plan, order, sent, Math.min(count, sent + plan.batch));
    sent += batch.length;
    progress.open += 1;
    if (intended === null) {
      progress.sentAt.push(performance.now());
      await client.write(batch);
      continue;
    }
    // Open loop: latency counts from the intended time of sending, whatever the queue before it.
    const wait = intended - performance.now();
    await (wait > 1 ? delay(wait) : setImmediate());
    progress.sentAt.push(intended);
    client.write(batch).catch((error: unknown) => {
      failure = error;
    });
  }
  if (failure !== null) throw failure;
  return sent;
}

/** The datapoints at some positions. Not within the loop that waits, which runs interpreted after each wait. */
function createBatch(plan: SendPlan, order: PlanOrder, from: number, to: number): ThingDatapoint[] {
  const batch: ThingDatapoint[] = [];
  for (let position = from; position < to; position++) {
    const { entity, attribute, generation } = order.at(position);
    batch.push(thingDatapoint(entity, attribute, generation, plan.population));
  }
  return batch;
}

function quantiles(progress: Progress, started: number, windowS: number) {
  const { latencies } = progress;
  const windows: number[][] = [];
  for (const { at, ms } of latencies) {
    const window = Math.max(0, Math.floor((at - started) / (windowS * 1000)));
    for (let i = windows.length; i <= window; i++) windows.push([]);
    windows[window]?.push(ms);
  }
  const all = latencies.map(({ ms }) => ms).sort((a, b) => a - b);
  for (const window of windows) window.sort((a, b) => a - b);
  return {
    ackP50Ms: quantile(all, 0.5),
    ackP99Ms: quantile(all, 0.99),
    windows: windows.map((window) => ({ p50Ms: quantile(window, 0.5), p99Ms: quantile(window, 0.99) })),
  };
}

function quantile(sorted: readonly number[], q: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? 0;
}

const [address = "", text = "{}"] = process.argv.slice(2);
const plan = JSON.parse(text) as SendPlan;
if (plan.liveMaxBatches !== undefined) process.on("SIGTERM", () => stop.abort());
process.stdout.write(`${JSON.stringify(await main(address, plan))}\n`);
