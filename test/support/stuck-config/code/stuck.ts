import {
  BaseModule,
  type CallbackRegistrar,
  type ModuleConfig,
  type PlatformConfig,
  type SnapshotValues,
} from "starling/modules";

/** A module whose second hook never yields for one of the things. */
export class Stuck extends BaseModule {
  constructor(platformConfig: PlatformConfig, moduleConfig: ModuleConfig, registrar: CallbackRegistrar) {
    super(platformConfig, moduleConfig, registrar);
    const sets = (name: string) => ({ dependsOn: [["n"]], mayChange: [[name]], name });
    registrar.registerCorrelationHook((_, values) => set(values, "before"), "thing", sets("before"));
    registrar.registerCorrelationHook(spin, "thing", { dependsOn: [["n"]], mayChange: [], name: "spin" });
    registrar.registerCorrelationHook((_, values) => set(values, "after"), "thing", sets("after"));
  }
}

function set(values: SnapshotValues, name: string): null {
  values[name] = Number(values.n) + 1;
  return null;
}

function spin(_: string, values: SnapshotValues): null {
  while (values.eid === "endless") {
    // for ever
  }
  return null;
}
