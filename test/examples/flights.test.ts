import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import type { DataPointTask, DerivedTask, Eid, LooseDatapoint, Value } from "../../modules/datapoint.ts";
import type { Hook, HookContext, RecordView } from "../../modules/hook.ts";
import type { Model } from "../../modules/model.ts";
import { loadConfig } from "../../node/config/load-config.ts";
import { airportDatapoints, flightDatapoints, flightsDatapoints } from "../../node/demo/flights-data.ts";
import { loadModules, type Modules } from "../../node/module-loader.ts";
import { systemClock } from "../../proto/clock.ts";
import { recordAt, specOf } from "../support/record-at.ts";
import { bodyOf, playTick, type Records, snapshotScope } from "../support/snapshot-play.ts";

const example = fileURLToPath(new URL("../../examples/flights", import.meta.url));
const dataDir = join(example, "data");
const log = { debug: vi.fn(), info: vi.fn(), warn: vi.fn(), error: vi.fn() };
const thresholds = { on_time_from: 0, late_from: 15, very_late_from: 60 };
const airports = new Map<Eid, RecordView>();
let cacheDir = "";
let model: Model;
let loaded: Modules;

beforeAll(async () => {
  ({ model } = await loadConfig(join(example, "config"), { env: {}, flags: {} }));
  cacheDir = await mkdtemp(join(tmpdir(), "starling-flights-"));
  loaded = await load(thresholds);
  for await (const datapoints of airportDatapoints(dataDir)) {
    const [first] = datapoints;
    if (first !== undefined) airports.set(first.eid as Eid, viewOf(datapoints));
  }
});

afterAll(() => rm(cacheDir, { recursive: true }));

function load(config: Record<string, unknown>): Promise<Modules> {
  return loadModules({
    modulesDir: join(example, "modules"),
    enabled: ["flights"],
    moduleConfigs: { flights: config },
    model,
    platformConfig: { nodeName: "test", model, config: {} },
    hookDefaults: { concurrency: 8, timeoutMs: 1000, retries: 0 },
    log: () => log,
    cacheDir,
    clock: systemClock,
  });
}

function viewOf(datapoints: readonly LooseDatapoint[]): RecordView {
  const values = new Map(datapoints.map(({ attr, v }) => [attr, v as Value]));
  const [first] = datapoints;
  return {
    type: String(first?.type),
    eid: first?.eid as Eid,
    value: (attr) => values.get(attr),
    latest: () => undefined,
    attributes: () => [...values.keys()].map(String),
  };
}

const ctx: HookContext = {
  now: 0,
  key: "key",
  signal: new AbortController().signal,
  log,
  record: null,
  get: async (_type, eid) => airports.get(eid) ?? null,
};

const taskOf = (eid: string, datapoints: readonly LooseDatapoint[] = []): DataPointTask =>
  ({ type: "route", eid, datapoints }) as unknown as DataPointTask;

function call<T>(hook: Hook<(...args: never[]) => unknown> | undefined, ...args: unknown[]): T {
  if (hook === undefined) throw new Error("the module did not register the hook");
  return Reflect.apply(hook.run, undefined, args) as T;
}

const allow = (eid: string) =>
  call<Promise<boolean>>(loaded.hooks.allowEntityCreation.get("route")?.[0], eid, taskOf(eid), ctx);
const describeRoute = (eid: string) =>
  call<Promise<DerivedTask[]>>(loaded.hooks.onEntityCreation.get("route")?.[0], eid, taskOf(eid), ctx);
const classify = (eid: string, v: number, modules = loaded) =>
  call<DerivedTask[]>(modules.hooks.onNewAttr.get("route")?.get("delay")?.[0], eid, { v, t1: 5, t2: 6 }, ctx);

describe("the module flights", () => {
  it("registers each of the hooks of the ingestion once, and those of snapshots in the order in which they run", () => {
    const { onTaskStart, allowEntityCreation, onEntityCreation, onNewAttr, snapshot } = loaded.hooks;
    const hooks = [
      ...onTaskStart,
      ...(allowEntityCreation.get("route") ?? []),
      ...(onEntityCreation.get("route") ?? []),
    ];
    expect([...hooks, ...(onNewAttr.get("route")?.get("delay") ?? [])].map(({ id }) => id)).toEqual([
      "flights/on_task_start/*/countSources",
      "flights/allow_entity_creation/route/allowKnownAirports",
      "flights/on_entity_creation/route/describeRoute",
      "flights/on_new_attr/route.delay/classifyDelay",
    ]);
    expect(snapshot?.correlation.map(({ name }) => name)).toEqual([
      "classifyDelay",
      "judgeRoute",
      "fuseAirport",
      "rateRisk",
    ]);
  });

  it("refuses exactly the routes of the invented flights", async () => {
    const routes = new Map<string, unknown>();
    for await (const [first] of flightDatapoints(dataDir)) {
      if (first?.type === "route" && !routes.has(String(first.eid))) routes.set(String(first.eid), first.src);
    }
    const refused: unknown[] = [];
    for (const [eid, src] of routes) if (!(await allow(eid))) refused.push(src);
    expect(routes.size).toBe(2977 + 12);
    expect(refused).toEqual(Array(12).fill("invented-flights.json"));
  });

  it("describes a new route by its two airports", async () => {
    const [task] = await describeRoute("ATL-SEA");
    expect(task).toMatchObject({ type: "route", eid: "ATL-SEA" });
    expect(task?.datapoints?.map(({ attr, v }) => [attr, v])).toEqual([
      ["description", "William B Hartsfield-Atlanta Intl to Seattle-Tacoma Intl"],
      ["distance_km", 3504.8],
    ]);
    expect(await describeRoute("ATL-OZZ")).toEqual([]);
  });

  it("classifies delays by its thresholds, for the route and for the airport at its end", async () => {
    const classes = [-1, 0, 14, 15, 59, 60].map((delay) => classify("ATL-SEA", delay)[0]?.datapoints?.[0]?.v);
    expect(classes).toEqual(["early", "on_time", "on_time", "late", "late", "very_late"]);
    expect(classify("ATL-SEA", 20)).toEqual([
      {
        type: "route",
        eid: "ATL-SEA",
        datapoints: [{ attr: "delay_class", v: "late", t1: 5, t2: 6, src: "module:flights" }],
      },
      {
        type: "airport",
        eid: "SEA",
        datapoints: [{ attr: "arrival_delay", v: 20, t1: 5, t2: 6, src: "module:flights" }],
      },
    ]);
    const patient = await load({ late_from: 30 });
    expect(classify("ATL-SEA", 20, patient)[0]?.datapoints?.[0]?.v).toBe("on_time");
    await expect(load({ late_from: "soon" })).rejects.toThrow('late_from is "soon", give a number of minutes');
  });

  it("counts datapoints by source and says so at its stop", async () => {
    const datapoints = [{ src: "a" }, { src: "b" }, { src: "a" }, { src: null }] as unknown as LooseDatapoint[];
    call(loaded.hooks.onTaskStart[0], taskOf("ATL-SEA", datapoints), ctx);
    await loaded.start();
    await loaded.stop();
    const counted = { datapoints: { a: 2, b: 1, unknown: 1 } };
    expect(log.info).toHaveBeenCalledWith(counted, "datapoints counted by source");
  });
});

/** What is stored of airports and routes when all datapoints but the refused routes' have been processed. */
async function recordsOf(): Promise<Records> {
  const told = new Map<string, LooseDatapoint[]>();
  for await (const datapoints of flightsDatapoints(dataDir)) {
    if (datapoints.some(({ src }) => src === "invented-flights.json")) continue;
    for (const datapoint of datapoints) {
      const key = `${String(datapoint.type)} ${String(datapoint.eid)}`;
      const known = told.get(key);
      if (known === undefined) told.set(key, [datapoint]);
      else known.push(datapoint);
    }
  }
  const records: Record<string, ReturnType<typeof recordAt>[]> = { airport: [], route: [] };
  for (const [key, datapoints] of told) {
    const [type = "", eid] = key.split(" ");
    records[type]?.push(recordAt(specOf(model, type), eid, datapoints));
  }
  return records;
}

async function routeFlights() {
  const flights: { route: string; late: boolean }[] = [];
  for await (const datapoints of flightDatapoints(dataDir)) {
    for (const { type, eid, attr, v, src } of datapoints) {
      if (type !== "route" || attr !== "delay" || src === "invented-flights.json") continue;
      flights.push({ route: String(eid), late: Number(v) >= thresholds.late_from });
    }
  }
  return flights;
}

describe("the flights' snapshots", () => {
  it("fuse an airport from its routes, and rate a route by both of its airports", async () => {
    const tick = await playTick(
      snapshotScope({ model, table: loaded.hooks, atMs: Date.now() }),
      await recordsOf(),
      500,
    );
    expect([...tick.report.values()].flatMap(({ problems }) => problems)).toEqual([]);
    const flights = await routeFlights();
    const strainOf = (airport: string) => {
      const own = flights.filter(({ route }) => route.split("-").includes(airport));
      return own.filter(({ late }) => late).length / own.length;
    };
    const round = (value: number) => Math.round(value * 1000) / 1000;
    const own = flights.filter(({ route }) => route === "ATL-ORD");
    const late = own.filter((flight) => flight.late).length;
    const around = (round(strainOf("ATL")) + round(strainOf("ORD"))) / 2;
    expect(bodyOf(tick, "route", "ATL-ORD")).toMatchObject({
      punctuality: { flights: own.length, late },
      risk: round((late + 10 * around) / (own.length + 10)),
    });
    expect(bodyOf(tick, "airport", "ATL")).toMatchObject({ strain: round(strainOf("ATL")), condition: "busy" });
  }, 120_000);
});

describe("the flights' data", () => {
  it("are all airports, then the flights in order of departure, the same in every run", async () => {
    const counts: Record<string, number> = {};
    let last = 0;
    for await (const datapoints of flightsDatapoints(dataDir)) {
      for (const { type, attr, t1 } of datapoints) {
        const name = `${type}.${attr}`;
        counts[name] = (counts[name] ?? 0) + 1;
        if (attr !== "delay") continue;
        expect(Number(t1)).toBeGreaterThanOrEqual(last);
        last = Number(t1);
      }
      if (datapoints[0]?.type === "airport" && datapoints[0].attr === "name") expect(last).toBe(0);
    }
    expect(counts).toMatchObject({
      "airport.name": 3376,
      "airport.city": 3364,
      "airport.latitude": 3376,
      "airport.departures": 6901,
      "route.origin": 2989,
      "route.delay": 20_012,
    });
  });

  it("give each departure once, in time order, and none of airports that do not exist", async () => {
    let departures = 0;
    for await (const [first] of flightDatapoints(dataDir)) {
      if (first?.attr !== "departures") continue;
      const { time, delay } = first.v as { time: string[]; delay: number[] };
      expect(time).toEqual([...time].sort());
      expect(delay).toHaveLength(time.length);
      expect(airports.has(first.eid as Eid)).toBe(true);
      departures += time.length;
    }
    expect(departures).toBe(20_000);
  });
});
