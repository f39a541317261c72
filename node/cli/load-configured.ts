import type { ModuleConfig } from "../../modules/base-module.ts";
import type { ModuleLog } from "../../modules/hook.ts";
import { systemClock } from "../../proto/clock.ts";
import type { LoadedConfig } from "../config/load-config.ts";
import { type LoopWatch, startLoopWatch } from "../loop-watch.ts";
import { loadModules, type Modules } from "../module-loader.ts";

interface LoadPlan {
  readonly modulesDir: string;
  readonly enabled: readonly string[];
  /** Where their JavaScript is written. */
  readonly cacheDir: string;
}

/**
 * Loads modules of a configuration directory, without a node around them: they register, and nothing is started. One that never
 * yields meanwhile is named and ends the process, as it would end a node. Raises MODULE.
 */
export async function loadConfigured(config: LoadedConfig, plan: LoadPlan): Promise<Modules> {
  const watch = startLoopWatch({ clock: systemClock, log: silentLog });
  try {
    return await loadWatched(config, plan, watch);
  } finally {
    await watch.close();
  }
}

function loadWatched(config: LoadedConfig, plan: LoadPlan, { onCode }: LoopWatch): Promise<Modules> {
  const { settings, model } = config;
  return loadModules({
    ...plan,
    moduleConfigs: Object.fromEntries(config.moduleConfigs) as Record<string, ModuleConfig>,
    model,
    platformConfig: { nodeName: "check", model, config: {} },
    hookDefaults: {
      concurrency: settings.hookConcurrency,
      timeoutMs: settings.hookTimeoutMs,
      retries: settings.hookRetries,
    },
    log: () => silentLog,
    clock: systemClock,
    onCode,
  });
}

const silentLog: ModuleLog = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
};
