import type { ModuleLog, RefreshFlag } from "./hook.ts";
import type { Model } from "./model.ts";
import type { ModuleActors } from "./module-actors.ts";
import type { CallbackRegistrar } from "./registrar.ts";

/** What a module may know of the node it runs on. */
export interface PlatformConfig {
  readonly nodeName: string;
  readonly model: Model;
  /** The configuration directory as nested maps: file name without `.yml`, then its keys. */
  readonly config: Readonly<Record<string, unknown>>;
}

/** What stands in `modules/<name>.yml`; empty when there is no such file. */
export type ModuleConfig = Readonly<Record<string, unknown>>;

/**
 * What every module extends. The constructor calls {@link loadConfig} and then registers hooks; hooks run with `this`
 * bound to the module, so `registrar.registerTaskHook("on_task_start", this.onTask)` is enough.
 *
 * Class fields with an initial value are set *after* `super(…)`: declare those that `loadConfig` fills with `declare`.
 */
export abstract class BaseModule {
  readonly log: ModuleLog;
  /** Messages to actors from outside of hooks; UNAVAILABLE before the node serves. */
  readonly actors: ModuleActors;
  /** Raised by the node after {@link loadConfig} ran again; pass it as the `refresh` option of a hook. */
  readonly refresh: RefreshFlag;

  constructor(platformConfig: PlatformConfig, moduleConfig: ModuleConfig, registrar: CallbackRegistrar) {
    this.log = registrar.log;
    this.actors = registrar.actors;
    this.refresh = createRefreshFlag();
    this.loadConfig(platformConfig, moduleConfig);
  }

  /** Reads the module's configuration: at the start, and again whenever a person asks for a reload. */
  loadConfig(_config: PlatformConfig, _moduleConfig: ModuleConfig): void {}

  /** Called once before the first hook runs. Bounded in time. */
  start(): void | Promise<void> {}

  /** Called once after the last hook has run. Bounded in time. */
  stop(): void | Promise<void> {}
}

/** A flag that is down. */
export function createRefreshFlag(): RefreshFlag {
  let status: "raised" | "lowered" = "lowered";
  return {
    get raised() {
      return status === "raised";
    },
    raise: () => {
      status = "raised";
    },
    lower: () => {
      status = "lowered";
    },
  };
}
