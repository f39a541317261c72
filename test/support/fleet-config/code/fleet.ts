import {
  BaseModule,
  type CallbackRegistrar,
  type Datapoint,
  type DerivedTask,
  type Eid,
  type HistoryPoint,
  type HookContext,
  type LinkedValue,
  type ModuleConfig,
  type PlatformConfig,
  type SnapshotContext,
  type SnapshotValues,
} from "starling/modules";

/*
 * Snapshot runs under faults: effects behind causes, values over links in both directions and two levels deep, tasks of all kinds
 * of hooks. What has to come out is said once more in `test/support/fleet/run-checker.ts`.
 */

const dayMs = 86_400_000;

/** The module of the fault runs. */
export class Fleet extends BaseModule {
  constructor(platformConfig: PlatformConfig, moduleConfig: ModuleConfig, registrar: CallbackRegistrar) {
    super(platformConfig, moduleConfig, registrar);
    registrar.registerOnNewAttrHook(this.follow("effect"), "cause", "n", { name: "effect" });
    registrar.registerOnNewAttrHook(this.follow("after"), "effect", "n", { name: "after" });
    registrar.registerOnNewAttrHook(this.stay, "guest", "stay");
    registrar.registerSnapshotInitHook(this.began);
    registrar.registerSnapshotFinalizeHook(this.ended);
    registrar.registerTimeseriesHook(this.counted, "lone", "chunks");
    registrar.registerCorrelationHook(this.doubled, "lone", { dependsOn: [["n"]], mayChange: [["doubled"]] });
    // The second level first: the graph puts it behind the one that it needs.
    registrar.registerCorrelationHook(this.behind, "bus", {
      ...{ dependsOn: [["speed"], ["line", "fastest"]], mayChange: [["behind"]], pure: true },
    });
    registrar.registerCorrelationHook(this.fused, "line", {
      ...{ dependsOn: [["buses", "speed"]], mayChange: [["size"], ["fastest"]], pure: true },
    });
  }

  private follow(type: string) {
    return (eid: Eid, { v }: Datapoint): DerivedTask[] => [
      { type, eid: `${type}-${String(eid).split("-")[1]}`, datapoints: [{ attr: "n", v }] },
    ];
  }

  private stay(eid: Eid, _: Datapoint, ctx: HookContext): DerivedTask[] {
    return [{ type: "guest", eid, ttlTokens: { stay: ctx.now + dayMs } }];
  }

  private began(ctx: SnapshotContext): DerivedTask[] {
    return [{ type: "round", eid: "round", datapoints: [{ attr: "began", v: String(ctx.now), t1: ctx.now }] }];
  }

  private ended(ctx: SnapshotContext): DerivedTask[] {
    return [{ type: "round", eid: "round", datapoints: [{ attr: "ended", v: String(ctx.now), t1: ctx.now }] }];
  }

  private counted(type: string, _: string, history: readonly HistoryPoint[], ctx: SnapshotContext): DerivedTask[] {
    const owners = history.flatMap(({ v }) => (v as { owner: readonly number[] }).owner);
    const datapoints = [
      { attr: "points", v: owners.length },
      { attr: "counted", v: ctx.key, t1: ctx.now },
    ];
    return [{ type, eid: `lone-${owners[0]}`, datapoints }];
  }

  private doubled(type: string, values: SnapshotValues, ctx: SnapshotContext): DerivedTask[] {
    values.doubled = 2 * Number(values.n);
    return [{ type, eid: values.eid, datapoints: [{ attr: "seen", v: ctx.key, t1: ctx.now }] }];
  }

  private fused(_: string, values: SnapshotValues): null {
    const buses = (values.buses ?? []) as readonly LinkedValue[];
    values.size = buses.length;
    values.fastest = Math.max(0, ...buses.map(({ record }) => Number(record?.speed ?? 0)));
    return null;
  }

  private behind(_: string, values: SnapshotValues): null {
    const line = values.line as LinkedValue | undefined;
    values.behind = Number(line?.record?.fastest ?? 0) - Number(values.speed ?? 0);
    return null;
  }
}
