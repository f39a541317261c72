import {
  BaseModule,
  type CallbackRegistrar,
  type Datapoint,
  type DerivedTask,
  type Eid,
  type ModuleConfig,
  type PlatformConfig,
  type SnapshotValues,
} from "starling/modules";

/** A module with a snapshot hook that never yields for one of the things, and an ingestion hook that does not for another. */
export class Stuck extends BaseModule {
  constructor(platformConfig: PlatformConfig, moduleConfig: ModuleConfig, registrar: CallbackRegistrar) {
    super(platformConfig, moduleConfig, registrar);
    const sets = (name: string) => ({ dependsOn: [["n"]], mayChange: [[name]], name });
    registrar.registerCorrelationHook((_, values) => set(values, "before"), "thing", sets("before"));
    registrar.registerCorrelationHook(spin, "thing", { dependsOn: [["n"]], mayChange: [], name: "spin" });
    registrar.registerCorrelationHook((_, values) => set(values, "after"), "thing", sets("after"));
    registrar.registerOnNewAttrHook(turn, "thing", "turns");
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

function turn(eid: Eid, { v }: Datapoint): DerivedTask[] {
  // The quick death is the process's as well.
  if (eid === "whirl" && process.env.WHIRL === "dies") process.kill(process.pid, "SIGKILL");
  while (eid === "whirl") Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20); // for ever, and without heat
  return [{ type: "thing", eid, datapoints: [{ attr: "before", v: Number(v) + 1 }] }];
}
