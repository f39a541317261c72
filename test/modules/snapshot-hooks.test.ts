import { describe, expect, it } from "vitest";
import { createRefreshFlag } from "../../modules/base-module.ts";
import { createRegistrar } from "../../modules/registrar.ts";
import type { CorrelationOptions } from "../../modules/snapshot-hook.ts";
import { configModel } from "../support/config-model.ts";

const model = configModel({
  route: {
    origin: "plain link<airport; mirror=departing>",
    via: "observations array<link<airport>>",
    delay: "observations int",
    risk: "plain float",
    flights: "timeseries",
  },
  airport: { state: "plain string", region: "plain link<region>" },
  region: { name: "plain string" },
});
const log = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };

function setUp() {
  const registrar = createRegistrar(model, { concurrency: 8, timeoutMs: 1000, retries: 2 });
  return { registrar, flights: registrar.forModule("flights", log, () => ({})) };
}

function correlate(
  door: ReturnType<typeof setUp>["flights"],
  name: string,
  type: string,
  dependsOn: CorrelationOptions["dependsOn"],
  mayChange: CorrelationOptions["mayChange"],
) {
  door.registerCorrelationHook(() => null, type, { name, dependsOn, mayChange });
}

describe("snapshot hooks", () => {
  it("have durable identities, and stand in the table by kind; correlation hooks in the order of the graph", () => {
    const { registrar, flights } = setUp();
    flights.registerTimeseriesHook(() => null, "route", "flights", { name: "count", pure: true });
    correlate(flights, "risk", "route", [["origin", "state"]], [["risk"]]);
    flights.registerCorrelationHookWithMasterRecord(() => null, "airport", {
      ...{ name: "state", dependsOn: [["departing", "delay"]], mayChange: [["state"]], pure: true },
    });
    flights.registerSnapshotInitHook(() => null, { name: "begin" });
    flights.registerSnapshotFinalizeHook(() => null, { name: "end", timeoutMs: 7 });
    const { snapshot } = registrar.hookTable();
    expect(snapshot?.timeseries.get("route")?.get("flights")).toMatchObject([
      { id: "flights/timeseries/route.flights/count", pure: true },
    ]);
    expect(snapshot?.correlation).toMatchObject([
      { id: "flights/correlation_with_master_record/airport/state", reach: { pure: true } },
      { id: "flights/correlation/route/risk", retries: 2, reach: { pure: false } },
    ]);
    expect(snapshot?.init).toMatchObject([{ id: "flights/snapshot_init/*/begin" }]);
    expect(snapshot?.finalize).toMatchObject([{ id: "flights/snapshot_finalize/*/end", timeoutMs: 7 }]);
  });

  it("know the links that their paths go over, and not one that a path ends with", () => {
    const { registrar, flights } = setUp();
    correlate(flights, "a", "route", [["origin", "region", "name"], ["via"]], [["via", "state"]]);
    const [hook] = registrar.hookTable().snapshot?.correlation ?? [];
    expect(hook?.reach?.dependsOn).toEqual([
      {
        steps: ["origin", "region", "name"],
        links: [
          { type: "route", attr: "origin", target: "airport", mirrors: null },
          { type: "airport", attr: "region", target: "region", mirrors: null },
        ],
        end: "region.name",
      },
      { steps: ["via"], links: [], end: "route.via" },
    ]);
    expect(hook?.reach?.mayChange).toMatchObject([{ links: [{ attr: "via" }], end: "airport.state" }]);
  });

  it("may go over a mirror, from a link's target to its sources (reference 15.1, number 13)", () => {
    const { registrar, flights } = setUp();
    correlate(flights, "a", "airport", [["departing", "delay"]], [["state"]]);
    const [hook] = registrar.hookTable().snapshot?.correlation ?? [];
    expect(hook?.reach?.dependsOn[0]?.links).toEqual([
      { type: "airport", attr: "departing", target: "route", mirrors: { type: "route", attr: "origin" } },
    ]);
    expect(() => correlate(flights, "b", "airport", [], [["departing"]])).toThrow(
      "'departing' of 'airport' is a mirror",
    );
  });

  it("are refused with the path and the step that is wrong", () => {
    const { flights } = setUp();
    const reads = (...path: string[]) => correlate(flights, "a", "route", [path], []);
    const at = "module flights: registerCorrelationHook: 'dependsOn'";
    expect(() => reads("origin", "stat")).toThrow(
      `${at} ["origin","stat"], step 2: entity type 'airport' has no attribute 'stat': did you mean 'state'?`,
    );
    expect(() => reads("risk", "state")).toThrow(
      `${at} ["risk","state"], step 1: the path goes on after 'risk' of 'route'`,
    );
    expect(() => reads()).toThrow(`${at.replace(/'$/, "'")} holds []: each path is a list such as ["attr"]`);
    expect(() => correlate(flights, "a", "rout", [], [])).toThrow("entity type 'rout' is not in the model");
    expect(() => correlate(flights, "a", "route", undefined as never, [])).toThrow("'dependsOn' is no list of paths");
    expect(() => correlate(flights, "a", "route", ["delay"] as never, [])).toThrow(`'dependsOn' holds "delay"`);
    expect(() => flights.registerTimeseriesHook(() => null, "route", "delay", { name: "t" })).toThrow(
      "attribute 'delay' of 'route' is no timeseries but observations",
    );
  });

  it("are refused as registered wrongly when a path holds a timeseries (reference 15.1, number 14)", () => {
    const { flights } = setUp();
    const timeseries = "step 1: 'flights' of 'route' is a timeseries, which no snapshot holds";
    expect(() => correlate(flights, "a", "route", [["flights"]], [])).toThrow(timeseries);
    expect(() => correlate(flights, "a", "route", [["flights", "n"]], [])).toThrow(timeseries);
    expect(() => correlate(flights, "a", "route", [], [["flights"]])).toThrow(timeseries);
  });

  it("close no cycle: the refusal names it and leaves no trace (reference 15.1, number 15)", () => {
    const { registrar, flights } = setUp();
    correlate(flights, "state", "airport", [["departing", "risk"]], [["state"]]);
    expect(() => correlate(flights, "risk", "route", [["origin", "state"]], [["risk"]])).toThrow(
      "the hook would wait for itself: flights/correlation/airport/state → airport.state → " +
        "flights/correlation/route/risk → route.risk → flights/correlation/airport/state",
    );
    correlate(flights, "risk", "route", [["delay"]], [["risk"]]);
    const ids = registrar.hookTable().snapshot?.correlation.map(({ name }) => name);
    expect(ids).toEqual(["risk", "state"]);
  });

  it("share the graph with hooks that are derived anew after their module's configuration changed", () => {
    const { registrar, flights } = setUp();
    correlate(flights, "state", "airport", [["departing", "risk"]], [["state"]]);
    flights.registerOnNewAttrHook(() => null, "route", "delay", {
      ...{ name: "classify", refresh: createRefreshFlag(), mayChange: [["risk"]] },
    });
    flights.registerOnEntityCreationHook(() => null, "route", { name: "describe", mayChange: [["risk"]] });
    const cyclic = { name: "again", refresh: createRefreshFlag(), mayChange: [["delay"]] };
    expect(() => flights.registerOnNewAttrHook(() => null, "route", "delay", cyclic)).toThrow("would wait for itself");
    const { snapshot } = registrar.hookTable();
    expect(snapshot?.correlation.map(({ name }) => name)).toEqual(["classify", "state"]);
    expect(snapshot?.correlation[0]?.reach?.dependsOn).toMatchObject([{ end: "route.delay" }]);
  });
});
