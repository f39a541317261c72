import type { Counters } from "../actors/counters.ts";
import { createHookCounters } from "../actors/hooks/hook-counters.ts";
import { allHooks } from "../actors/hooks/hook-lane.ts";
import type { Hook, HookTable } from "../modules/hook.ts";
import { formatPath } from "../modules/hook-path.ts";
import type { Model } from "../modules/model.ts";
import type { Modules } from "./module-loader.ts";

/** Loaded modules with their hooks and what each hook has counted, for `Admin.ListModules`. */
export function moduleStatuses(modules: Modules, model: Model, counters: Counters) {
  const { hooks } = modules;
  const all = new Set([...allHooks(hooks), ...snapshotHooks(hooks)]);
  const graph = hooks.snapshot?.correlation ?? [];
  return modules.modules.map(({ name, file }) => ({
    name,
    file,
    hooks: [...all]
      .filter((hook) => hook.module === name)
      .map((hook) => statusOf(hook, { model, counters, order: graph.indexOf(hook) + 1 })),
  }));
}

/** Those of snapshot runs, as a run calls them. */
function snapshotHooks({ snapshot }: HookTable): readonly Hook[] {
  if (snapshot === undefined) return [];
  const { init, timeseries, correlation, finalize } = snapshot;
  return [
    ...init,
    ...[...timeseries.values()].flatMap((ofType) => [...ofType.values()].flat()),
    ...correlation,
    ...finalize,
  ];
}

function statusOf(hook: Hook, { model, counters, order }: { model: Model; counters: Counters; order: number }) {
  const counts = createHookCounters(counters, model, hook);
  const { dependsOn = [], mayChange = [], pure = hook.pure ?? false } = hook.reach ?? {};
  return {
    kind: hook.kind,
    target: [hook.type, hook.attr].filter((part) => part !== null).join("."),
    name: hook.name,
    counters: {
      executions: counts.executions.value,
      failures: counts.failures.value,
      duration_ns: counts.durationNs.value,
      created_tasks: counts.createdTasks.value,
      decisions_allowed: counts.allowed.value,
      decisions_denied: counts.denied.value,
    },
    dependsOn: dependsOn.map(({ steps }) => formatPath(steps)),
    mayChange: mayChange.map(({ steps }) => formatPath(steps)),
    pure,
    order,
  };
}
