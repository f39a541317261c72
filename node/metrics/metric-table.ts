import { clusterMetrics } from "./cluster-metrics.ts";
import { dataMetrics } from "./data-metrics.ts";
import { hookMetrics } from "./hook-metrics.ts";
import type { Metric } from "./metric.ts";
import { processMetrics } from "./process-metrics.ts";

/**
 * Every metric of a node. Nothing here is counted for the metrics' sake while datapoints pass: they are read, when somebody
 * asks, from what the node counts anyway. Labels are bounded by the configuration: hooks, codes, states; never by data.
 */
export const metricTable: readonly Metric[] = [...dataMetrics, ...hookMetrics, ...clusterMetrics, ...processMetrics];
