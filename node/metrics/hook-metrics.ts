import { createHookCounters, type HookCounters } from "../../actors/hooks/hook-counters.ts";
import type { Hook } from "../../modules/hook.ts";
import type { Metric, Sample, Scene } from "./metric.ts";

const labels = ["module", "hook", "kind", "target"] as const;

/** What each hook of each module does: as many time series as there are hooks. */
export const hookMetrics: readonly Metric[] = [
  ofHooks("counter", "starling_hook_runs_total", "attempts of a hook", (of) => of.executions.value),
  ofHooks("counter", "starling_hook_failures_total", "attempts of a hook that failed", (of) => of.failures.value),
  ofHooks("counter", "starling_hook_tasks_total", "tasks that a hook derived", (of) => of.createdTasks.value),
  ofHooks(
    "histogram",
    "starling_hook_seconds",
    "time of an attempt; sampled where hooks end at once",
    (of) => of.seconds,
  ),
];

function ofHooks(
  type: Metric["type"],
  name: string,
  help: string,
  value: (counters: HookCounters) => Sample["value"],
): Metric {
  const read = ({ node, counters }: Scene): Sample[] => {
    if (node === null) return [];
    const { hooks, model } = node;
    return hooks.map((hook) => ({ labels: labelsOf(hook), value: value(createHookCounters(counters, model, hook)) }));
  };
  return { name, help, type, labels, read };
}

function labelsOf({ module, name, kind, type, attr }: Hook) {
  const target = [type, attr].filter((part) => part !== null).join(".");
  return { module, hook: name, kind, target };
}
