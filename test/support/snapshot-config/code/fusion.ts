import { setTimeout } from "node:timers/promises";
import {
  BaseModule,
  type CallbackRegistrar,
  type DerivedTask,
  type LinkedValue,
  type ModuleConfig,
  type PlatformConfig,
  type SnapshotContext,
  type SnapshotValues,
} from "starling/modules";

/** The module of the tests of snapshot runs: over links in both directions, two levels deep, with tasks, and slowly. */
export class Fusion extends BaseModule {
  constructor(platformConfig: PlatformConfig, moduleConfig: ModuleConfig, registrar: CallbackRegistrar) {
    super(platformConfig, moduleConfig, registrar);
    // The second level first: the graph puts it behind the one that it needs.
    registrar.registerCorrelationHook(this.behind, "bus", {
      dependsOn: [["speed"], ["line", "fastest"]],
      mayChange: [["behind"]],
      pure: true,
    });
    registrar.registerCorrelationHook(this.fastest, "line", {
      dependsOn: [["buses", "speed"]],
      mayChange: [["fastest"]],
      pure: true,
    });
    registrar.registerCorrelationHook(this.doubled, "lone", { dependsOn: [["n"]], mayChange: [["doubled"]] });
  }

  private fastest(_: string, values: SnapshotValues): null {
    const buses = (values.buses ?? []) as readonly LinkedValue[];
    values.fastest = Math.max(0, ...buses.map(({ record }) => Number(record?.speed ?? 0)));
    return null;
  }

  private behind(_: string, values: SnapshotValues): null {
    const line = values.line as LinkedValue | undefined;
    values.behind = Number(line?.record?.fastest ?? 0) - Number(values.speed ?? 0);
    return null;
  }

  private async doubled(_: string, values: SnapshotValues, ctx: SnapshotContext): Promise<DerivedTask[]> {
    await setTimeout(2);
    values.doubled = 2 * Number(values.n);
    return [{ type: "lone", eid: values.eid, datapoints: [{ attr: "seen", v: ctx.key, t1: ctx.now }] }];
  }
}
