import type { ModuleConfig } from "../../modules/base-module.ts";
import type { ModuleLog } from "../../modules/hook.ts";
import { systemClock } from "../../proto/clock.ts";
import type { LoadedConfig } from "../config/load-config.ts";
import { loadModules, type Modules } from "../module-loader.ts";

interface LoadPlan {
  readonly modulesDir: string;
  readonly enabled: readonly string[];
  /** Where their JavaScript is written. */
  readonly cacheDir: string;
}

/** Loads modules of a configuration directory, without a node around them: they register, and nothing is started. Raises MODULE. */
export function loadConfigured(config: LoadedConfig, plan: LoadPlan): Promise<Modules> {
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
  });
}

const silentLog: ModuleLog = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
};
