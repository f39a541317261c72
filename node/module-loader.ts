import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { BaseModule, type ModuleConfig, type PlatformConfig } from "../modules/base-module.ts";
import type { BehaviourSpec } from "../modules/behaviour.ts";
import { didYouMean } from "../modules/did-you-mean.ts";
import type { HookTable, ModuleLog } from "../modules/hook.ts";
import type { HookDefaults } from "../modules/hook-list.ts";
import type { Model } from "../modules/model.ts";
import type { ModuleActorsDoor } from "../modules/module-actors.ts";
import { type CallbackRegistrar, createRegistrar, type Registrar } from "../modules/registrar.ts";
import type { ScheduledCallback } from "../modules/schedule.ts";
import type { Clock } from "../proto/clock.ts";
import { StarlingError } from "../proto/starling-error.ts";
import { bundleModule, type ModuleBundle, pruneBundles } from "./module-bundle.ts";

/** A module file that was loaded. */
export interface LoadedModule {
  readonly name: string;
  readonly file: string;
  /** Hash of its sources (hex). */
  readonly hash: string;
  /** The file of JavaScript that was made of them. */
  readonly bundle: string;
  /** One per class of the file that extends BaseModule. */
  readonly instances: readonly BaseModule[];
}

/** The modules of a node. */
export interface Modules {
  readonly modules: readonly LoadedModule[];
  readonly hooks: HookTable;
  readonly scheduled: readonly ScheduledCallback[];
  readonly behaviours: readonly BehaviourSpec[];
  /** To be opened when the node has its actors. */
  readonly actors: ModuleActorsDoor;
  /** Starts all in their order; when one fails those before it are stopped again and MODULE is raised. */
  start(): Promise<void>;
  /** Stops all in reverse order; failures are logged. */
  stop(): Promise<void>;
  /** Gives a module another configuration and raises its refresh flag. Raises NOT_FOUND, MODULE. */
  refresh(name: string, config: ModuleConfig): void;
}

/** Code of a module that is no hook. `load`: the top level of its file, its constructor, and `loadConfig` from there. */
export interface ModuleCode {
  readonly module: string;
  /** Absolute. */
  readonly file: string;
  readonly where: "load" | "start" | "stop" | "refresh";
}

export interface ModuleLoaderOptions {
  /** Absolute. */
  readonly modulesDir: string;
  readonly enabled: readonly string[];
  /** By module name; missing means empty. */
  readonly moduleConfigs: Readonly<Record<string, ModuleConfig>>;
  readonly model: Model;
  readonly platformConfig: PlatformConfig;
  readonly hookDefaults: HookDefaults;
  /** The log of a module. */
  readonly log: (module: string) => ModuleLog;
  /** Where transpiled modules are kept; absolute, on a file system that this process may write. */
  readonly cacheDir: string;
  readonly clock: Clock;
  /** Called before such code runs, and with null after it; of `start()` and `stop()` up to what they await first. */
  readonly onCode?: (code: ModuleCode | null) => void;
  /** Bound on each `start()` and `stop()`; default 30 s. */
  readonly startStopMaxMs?: number;
}

const defaultStartStopMaxMs = 30_000;
const namePattern = /^[A-Za-z_][A-Za-z0-9_-]*$/;
const endings = [".ts", ".js", ".mjs"];

/** Loads the enabled modules in their order; they register their hooks. Raises MODULE with file, line and remedy. */
export async function loadModules(options: ModuleLoaderOptions): Promise<Modules> {
  const registrar = createRegistrar(options.model, options.hookDefaults);
  const modules: LoadedModule[] = [];
  for (const name of options.enabled) {
    if (modules.some((module) => module.name === name)) {
      throw new StarlingError("MODULE", `module '${name}' is enabled twice: remove one from enabled_modules`);
    }
    modules.push(await loadModule(options, registrar, name));
  }
  await pruneBundles(options.cacheDir, { keep: modules.map(({ bundle }) => bundle), now: Date.now() });
  const hooks = registrar.hookTable();
  const { startStopMaxMs = defaultStartStopMaxMs, clock } = options;
  const bounded = (module: LoadedModule, method: "start" | "stop", instance: BaseModule) =>
    within(clock, startStopMaxMs, `module ${module.name}: ${method}()`, () => {
      return named(options, module, method, () => instance[method]());
    });
  const instances = modules.flatMap((module) => module.instances.map((instance) => ({ module, instance })));
  let started: typeof instances = [];
  const stop = async (): Promise<void> => {
    const stopping = started.reverse();
    started = [];
    for (const { module, instance } of stopping) {
      await bounded(module, "stop", instance).catch((error: StarlingError) => {
        options.log(module.name).error({ err: error }, "module failed to stop");
      });
    }
  };
  const start = async (): Promise<void> => {
    for (const one of instances) {
      try {
        await bounded(one.module, "start", one.instance);
        started.push(one);
      } catch (error) {
        await stop();
        throw error;
      }
    }
  };
  const refresh = (name: string, config: ModuleConfig) => refreshModule(options, modules, name, config);
  const { scheduled, behaviours, actors } = registrar;
  return { modules, hooks, scheduled, behaviours, actors, start, stop, refresh };
}

async function loadModule(options: ModuleLoaderOptions, registrar: Registrar, name: string): Promise<LoadedModule> {
  const file = await findFile(options.modulesDir, name);
  const bundle = await bundleModule(file, options.cacheDir);
  const log = options.log(name);
  const fail = (what: string, error: unknown) => {
    if (error instanceof StarlingError && error.code === "MODULE") {
      return new StarlingError("MODULE", `${error.message}${bundle.locate(error)}`, { cause: error });
    }
    const message = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
    return new StarlingError("MODULE", `module ${name} (${file}) ${what}: ${message}${bundle.locate(error)}`, {
      cause: error,
    });
  };
  const config = options.moduleConfigs[name] ?? {};
  const create = (Module: ModuleClass): BaseModule => {
    let instance: BaseModule | null = null;
    const owner = () => instance ?? fail("registered a hook without an instance", "");
    try {
      instance = new Module(options.platformConfig, config, registrar.forModule(name, log, owner));
      return instance;
    } catch (error) {
      throw fail("failed in its constructor", error);
    }
  };
  options.onCode?.({ module: name, file, where: "load" });
  try {
    const classes = await importClasses(name, file, bundle, fail);
    const instances = classes.map(create);
    log.debug({ file, classes: classes.map(({ name }) => name) }, "module loaded");
    return { name, file, hash: bundle.hash, bundle: bundle.path, instances };
  } finally {
    options.onCode?.(null);
  }
}

/** Runs code of a module that is named for as long as it does not yield. */
function named<T>(
  { onCode }: ModuleLoaderOptions,
  { name, file }: LoadedModule,
  where: ModuleCode["where"],
  run: () => T,
): T {
  onCode?.({ module: name, file, where });
  try {
    return run();
  } finally {
    onCode?.(null);
  }
}

async function findFile(modulesDir: string, name: string): Promise<string> {
  if (!namePattern.test(name)) {
    throw new StarlingError(
      "MODULE",
      `enabled_modules: '${name}' is no module name: letters, digits, '_' and '-' only`,
    );
  }
  const listing = await readdir(modulesDir, { withFileTypes: true }).catch((error: Error) => {
    throw new StarlingError("MODULE", `modules_dir ${modulesDir} cannot be read: ${error.message}`, { cause: error });
  });
  const files = listing.filter((entry) => !entry.isDirectory()).map((entry) => entry.name);
  const found = endings.map((ending) => name + ending).filter((file) => files.includes(file));
  const [file] = found;
  if (file !== undefined && found.length === 1) return join(modulesDir, file);
  if (found.length > 1) {
    throw new StarlingError(
      "MODULE",
      `module '${name}' is in ${modulesDir} more than once: keep one of ${found.join(", ")}`,
    );
  }
  if (files.includes(`${name}.py`)) {
    const where = join(modulesDir, `${name}.py`);
    throw new StarlingError("MODULE", `${where} is a Python module: see 'Porting a DP³ module' in the README`);
  }
  const known = files.filter((entry) => endings.some((ending) => entry.endsWith(ending)) && !entry.endsWith(".d.ts"));
  const hint = didYouMean(
    name,
    known.map((entry) => entry.replace(/\.\w+$/, "")),
  );
  throw new StarlingError("MODULE", `module '${name}' is not in ${modulesDir}${hint}`);
}

type ModuleClass = new (config: PlatformConfig, moduleConfig: ModuleConfig, registrar: CallbackRegistrar) => BaseModule;
type Fail = (what: string, error: unknown) => StarlingError;

async function importClasses(name: string, file: string, bundle: ModuleBundle, fail: Fail): Promise<ModuleClass[]> {
  let exported: Record<string, unknown>;
  try {
    exported = await import(pathToFileURL(bundle.path).href);
  } catch (error) {
    throw fail("failed to load", error);
  }
  const classes = [...new Set(Object.values(exported))].filter(isModuleClass);
  if (classes.length > 0) return classes;
  const remedy = 'export a class that extends BaseModule from "starling/modules"';
  throw new StarlingError("MODULE", `module ${name} (${file}) exports no module: ${remedy}`);
}

function isModuleClass(value: unknown): value is ModuleClass {
  return typeof value === "function" && value.prototype instanceof BaseModule;
}

function refreshModule(
  options: ModuleLoaderOptions,
  modules: readonly LoadedModule[],
  name: string,
  config: ModuleConfig,
): void {
  const module = modules.find((candidate) => candidate.name === name);
  if (module === undefined) {
    const hint = didYouMean(
      name,
      modules.map((candidate) => candidate.name),
    );
    throw new StarlingError("NOT_FOUND", `module '${name}' is not loaded${hint}`);
  }
  for (const instance of module.instances) {
    try {
      named(options, module, "refresh", () => instance.loadConfig(options.platformConfig, config));
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      throw new StarlingError("MODULE", `module ${name}: loadConfig() failed: ${message}`, { cause: error });
    }
    instance.refresh.raise();
  }
  options.log(name).info({}, "module configuration reloaded");
}

/** Awaits user code, at most for a time. */
async function within(clock: Clock, maxMs: number, what: string, run: () => void | Promise<void>): Promise<void> {
  let cancel = () => {};
  const late = new Promise<never>((_, reject) => {
    cancel = clock.after(maxMs, () => reject(new StarlingError("MODULE", `${what} did not end within ${maxMs} ms`)));
  });
  try {
    await Promise.race([late, (async () => run())()]);
  } catch (error) {
    if (error instanceof StarlingError && error.code === "MODULE") throw error;
    const message = error instanceof Error ? error.message : String(error);
    throw new StarlingError("MODULE", `${what} failed: ${message}`, { cause: error });
  } finally {
    cancel();
  }
}
