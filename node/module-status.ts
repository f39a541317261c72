import type { Counters } from "../actors/counters.ts";
import { createHookCounters } from "../actors/hook-counters.ts";
import { allHooks } from "../actors/hook-lane.ts";
import type { Hook } from "../modules/hook.ts";
import type { Model } from "../modules/model.ts";
import type { ModuleStatus } from "./grpc/admin-service.ts";
import type { Modules } from "./module-loader.ts";

/** Loaded modules with their hooks and what each hook has counted, for `Admin.ListModules`. */
export function moduleStatuses(modules: Modules, model: Model, counters: Counters): ModuleStatus[] {
  const hooks = allHooks(modules.hooks);
  return modules.modules.map(({ name, file }) => ({
    name,
    file,
    hooks: hooks.filter((hook) => hook.module === name).map((hook) => statusOf(hook, model, counters)),
  }));
}

function statusOf(hook: Hook, model: Model, counters: Counters) {
  const counts = createHookCounters(counters, model, hook);
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
  };
}
