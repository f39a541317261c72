import { describe, expect, it } from "vitest";
import { BaseModule, type ModuleConfig, type PlatformConfig } from "../../modules/base-module.ts";
import type { CallbackRegistrar } from "../../modules/registrar.ts";
import type { LinkedValue, MasterRecord, SnapshotContext, SnapshotValues } from "../../modules/snapshot-hook.ts";
import { testModule } from "../../modules/testing.ts";

const plain = (dataType: string) => ({ type: "plain", name: "x", data_type: dataType });
const types = {
  route: {
    origin: plain("link<airport; mirror=departing>"),
    delay: { type: "observations", name: "x", data_type: "int" },
    risk: plain("float"),
    seen: plain("json"),
  },
  airport: { entity: { id: "airport", id_data_type: "int" }, attribs: { load: plain("float") } },
};

class Judge extends BaseModule {
  mischief: "none" | "undeclared" | "type" | "throw" | "answer" = "none";

  constructor(platformConfig: PlatformConfig, moduleConfig: ModuleConfig, registrar: CallbackRegistrar) {
    super(platformConfig, moduleConfig, registrar);
    const load = { dependsOn: [["departing", "delay"]], mayChange: [["load"]] };
    registrar.registerCorrelationHook(this.rate, "route", { dependsOn: [["origin", "load"]], mayChange: [["risk"]] });
    registrar.registerCorrelationHook(this.sum, "airport", load);
    const seen = { dependsOn: [], mayChange: [["seen"]] };
    registrar.registerCorrelationHookWithMasterRecord(this.look, "route", seen);
  }

  private sum(_: string, values: SnapshotValues) {
    const routes = values.departing as readonly LinkedValue[];
    values.load = routes.reduce((sum, { record }) => sum + Number(record?.delay ?? 0), 0);
    return [{ type: "route", eid: "a", datapoints: [{ attr: "risk", v: 1 }] }];
  }

  private rate(_: string, values: SnapshotValues) {
    if (this.mischief === "throw") throw new Error("no luck");
    if (this.mischief === "undeclared") values.seen = {};
    if (this.mischief === "answer") return 5 as never;
    const load = (values.origin as LinkedValue | undefined)?.record?.load;
    values.risk = this.mischief === "type" ? "high" : Number(load ?? 0) / 100;
    return null;
  }

  private look(_: string, values: SnapshotValues, { delay = [] }: MasterRecord, { now, key }: SnapshotContext) {
    values.seen = { now, key, points: (delay as readonly unknown[]).length };
    return null;
  }
}

const setUp = () => testModule({ module: Judge, types });
const given = {
  route: { a: { origin: { eid: 7 }, delay: 30 }, b: { origin: { eid: "7" }, delay: 10 }, c: {} },
  airport: { 7: {} },
};

describe("the testing kit", () => {
  it("runs a module's correlation hooks in the order of the graph, over links and mirrors, without a node", async () => {
    const master = { route: { a: { delay: [{ t1: 0, t2: 1, v: 30, c: 1 }] } } };
    const { entities, tasks } = await setUp().snapshot(given, { now: 9, master });
    const seen = (eid: string, points: number) => ({
      ...{ now: 9, points },
      key: `1-route-${eid}-module/correlation_with_master_record/route/look`,
    });
    expect(entities).toEqual({
      route: {
        a: { eid: "a", origin: { eid: 7 }, delay: 30, risk: 0.4, seen: seen("a", 1) },
        b: { eid: "b", origin: { eid: 7 }, delay: 10, risk: 0.4, seen: seen("b", 0) },
        c: { eid: "c", risk: 0, seen: seen("c", 0) },
      },
      airport: { 7: { eid: 7, departing: [{ eid: "a" }, { eid: "b" }], load: 40 } },
    });
    expect(tasks.map(({ eid, datapoints }) => [eid, datapoints.map(({ v }) => v)])).toEqual([["a", [1]]]);
  });

  it.each([
    ["undeclared", "module/correlation/route/rate set seen of route a, which its 'mayChange' does not name"],
    ["type", "expected float, a finite number, found"],
    ["throw", "no luck"],
    ["answer", "module/correlation/route/rate returned no list of tasks for route a"],
  ] as const)("tells the author what is wrong: %s", async (mischief, message) => {
    const test = setUp();
    test.module.mischief = mischief;
    await expect(test.snapshot(given)).rejects.toThrow(message);
  });

  it("refuses values and types that the model does not know", async () => {
    const test = setUp();
    await expect(test.snapshot({ rout: {} })).rejects.toThrow("there is no entity type 'rout'");
    await expect(test.snapshot({ route: { a: { speed: 1 } } })).rejects.toThrow("has no attribute 'speed'");
    expect(() => testModule({ module: Judge, types: { route: { origin: plain("link<airport>") } } })).toThrow(
      "db_entities/route.yml: attribs.origin.data_type: links to an entity type that is not defined",
    );
  });
});
