import { type Metric as PromMetric, Registry } from "prom-client";
import type { EngineStatus } from "../../actors/engine.ts";
import type { Histogram } from "../../actors/histogram.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import type { Labels, Metric, MetricWorld, Sample } from "./metric.ts";

/** The media type of {@link exposeMetrics}. */
export const metricsMediaType = Registry.PROMETHEUS_CONTENT_TYPE;

/** Reads the metrics and writes them in Prometheus' text format. */
export async function exposeMetrics(metrics: readonly Metric[], world: MetricWorld): Promise<string> {
  const registry = new Registry();
  const status = world.node?.engine.status() ?? starting;
  const usage = world.usage();
  const scene = { ...world, usage: () => usage, status, counts: world.counters.read() };
  for (const { name, help, type, read } of metrics) {
    const values = read(scene).flatMap((sample) => linesOf(name, sample));
    // Of a metric the registry asks nothing but these; its own classes would count a second time what is counted already.
    const read1 = { name, help, type, get: async () => ({ name, help, type, values, aggregator: "sum" }) };
    registry.registerMetric(read1 as unknown as PromMetric);
  }
  return registry.metrics();
}

const starting: EngineStatus = { problem: new StarlingError("UNAVAILABLE", "the node is starting"), shards: [] };

interface Line {
  readonly metricName: string;
  readonly labels: Labels;
  readonly value: number;
}

function linesOf(name: string, { labels, value }: Sample): Line[] {
  return typeof value === "number" ? [{ metricName: name, labels, value }] : linesOfHistogram(name, labels, value);
}

/** Buckets are cumulated, as the format wants them. */
function linesOfHistogram(name: string, labels: Labels, { bounds, counts, sum }: Histogram): Line[] {
  let below = 0;
  const buckets = [...counts()].map((count, index): Line => {
    below += count;
    const le = index < bounds.length ? String(bounds[index]) : "+Inf";
    return { metricName: `${name}_bucket`, labels: { ...labels, le }, value: below };
  });
  return [
    ...buckets,
    { metricName: `${name}_sum`, labels, value: sum() },
    { metricName: `${name}_count`, labels, value: below },
  ];
}
