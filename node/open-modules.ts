import { join } from "node:path";
import type { Counters } from "../actors/counters.ts";
import type { Engine } from "../actors/engine.ts";
import { allHooks } from "../actors/hooks/hook-lane.ts";
import { createHookRunner, type HookRunner, hookRunnerLimits } from "../actors/hooks/hook-runner.ts";
import { checkSchedules } from "../actors/schedules/schedule-driver.ts";
import { modelWithBehaviours } from "../modules/behaviour-model.ts";
import type { Model } from "../modules/model.ts";
import { systemClock } from "../proto/clock.ts";
import type { NodeId } from "../proto/ids.ts";
import type { LoadedConfig } from "./config/load-config.ts";
import type { Log } from "./log.ts";
import { startLoopWatch } from "./loop-watch.ts";
import { loadModules, type Modules } from "./module-loader.ts";

/** The modules of a node, started, and what runs their hooks. */
export interface OpenModules {
  readonly modules: Modules;
  readonly runner: HookRunner;
  /** With the behaviours of the modules as entity types of their own. */
  readonly actorModel: Model;
}

export interface ModulesOptions {
  readonly config: LoadedConfig;
  readonly configDir: string;
  readonly dataDir: string;
  readonly node: NodeId;
  readonly counters: Counters;
  readonly log: Log;
  /** Null until it is there. */
  readonly engine: () => Engine | null;
}

/** Loads and starts the modules. What is to be closed again, also when this fails, is pushed. Raises CONFIG, MODULE. */
export async function openModules(options: ModulesOptions, opened: (() => Promise<void>)[]): Promise<OpenModules> {
  const { config, counters, log } = options;
  const { settings, model } = config;
  // First: a module that never yields while it is loaded ends the node, too.
  const watch = startLoopWatch({ clock: systemClock, log });
  opened.push(() => watch.close());
  const modules = await loadModules({
    modulesDir: config.modulesDir ?? options.configDir,
    enabled: config.enabledModules,
    moduleConfigs: Object.fromEntries(config.moduleConfigs) as Parameters<typeof loadModules>[0]["moduleConfigs"],
    model,
    platformConfig: { nodeName: options.node, model, config: platformFiles(config) },
    hookDefaults: {
      concurrency: settings.hookConcurrency,
      timeoutMs: settings.hookTimeoutMs,
      retries: settings.hookRetries,
    },
    log: (module) => log.child({ module }),
    cacheDir: join(options.dataDir, "modules"),
    clock: systemClock,
    onCode: watch.onCode,
  });
  checkSchedules(modules.scheduled);
  const actorModel = modelWithBehaviours(model, modules.behaviours);
  watch.know(allHooks(modules.hooks).map((hook) => hook.id));
  const runner = createHookRunner({
    hooks: modules.hooks,
    model: actorModel,
    limits: { ...hookRunnerLimits, tasksMax: settings.hookTasksMax, bytesMax: settings.hookTasksMaxBytes },
    clock: systemClock,
    random: Math.random,
    counters,
    log: (hook) => log.child({ module: hook.module, hook: hook.name }),
    getRecord: async (type, eid) => (await options.engine()?.get(type, String(eid), null))?.view ?? null,
    mark: watch.mark,
  });
  opened.push(async () => runner.close());
  await modules.start();
  opened.push(() => modules.stop());
  return { modules, runner, actorModel };
}

/** What modules see of the configuration directory. */
function platformFiles(config: LoadedConfig): Readonly<Record<string, unknown>> {
  const { moduleConfigs, ...core } = config.platform;
  return { core, modules: Object.fromEntries(moduleConfigs) };
}
