import type { Metric, Scene } from "./metric.ts";
import { counter, gauge } from "./metric.ts";

/** The process: names that begin with `process_` are those of every Prometheus client. */
export const processMetrics: readonly Metric[] = [
  {
    name: "starling_info",
    help: "1, with the node's version and names as labels",
    type: "gauge",
    labels: ["version", "name", "node", "cluster"],
    read: ({ version, node }: Scene) => {
      const { name = "", id = "" } = node?.membership.self ?? {};
      return [{ labels: { version, name, node: id, cluster: node?.clusterId ?? "" }, value: 1 }];
    },
  },
  {
    name: "starling_loop_delay_seconds",
    help: "how late timers of the event loop are, looked at about twice a second",
    type: "histogram",
    labels: [],
    read: ({ loopDelay }) => [{ labels: {}, value: loopDelay }],
  },
  {
    name: "process_cpu_seconds_total",
    help: "processor time of all threads",
    type: "counter",
    labels: [],
    read: ({ usage }) => [{ labels: {}, value: usage().cpuSeconds }],
  },
  counter("starling_spans_exported_total", "spans of traces that reached their file or collector", "spans/exported"),
  counter("starling_spans_failed_total", "spans of traces that did not", "spans/failed"),
  gauge("process_resident_memory_bytes", "memory of the process", ({ usage }) => usage().rssBytes),
  gauge("process_start_time_seconds", "when the process started, Unix time", ({ usage }) => usage().startedAt),
  gauge("starling_heap_used_bytes", "memory of JavaScript objects", ({ usage }) => usage().heapUsedBytes),
  gauge("starling_heap_size_bytes", "memory kept for JavaScript objects", ({ usage }) => usage().heapTotalBytes),
  gauge("starling_external_bytes", "memory of buffers", ({ usage }) => usage().externalBytes),
];
