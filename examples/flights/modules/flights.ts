import {
  BaseModule,
  type CallbackRegistrar,
  type DataPointTask,
  type Datapoint,
  type DerivedTask,
  type Eid,
  type HookContext,
  type LinkedValue,
  type MasterRecord,
  type ModuleConfig,
  type PlatformConfig,
  type RecordView,
  type SnapshotValues,
} from "starling/modules";

interface Thresholds {
  readonly onTimeFrom: number;
  readonly lateFrom: number;
  readonly veryLateFrom: number;
  readonly busyFrom: number;
  readonly strainedFrom: number;
}

/** How the flights of a route went: what snapshots of routes hold as `punctuality`. */
interface Punctuality {
  readonly flights: number;
  readonly late: number;
  readonly mean_delay: number;
}

const source = "module:flights";
const earthRadiusKm = 6371;
const flightsOfAirports = 10;

/** Judges routes between airports by the delays of their flights. A module is a class that extends BaseModule. */
export class Flights extends BaseModule {
  // `declare`: loadConfig fills it during super(…), and a field's initial value would come after that.
  declare private thresholds: Thresholds;
  // Lives in memory only, one per node, and starts at zero after a restart: good enough for statistics.
  private readonly datapointsBySource = new Map<string, number>();

  constructor(platformConfig: PlatformConfig, moduleConfig: ModuleConfig, registrar: CallbackRegistrar) {
    super(platformConfig, moduleConfig, registrar);
    registrar.registerTaskHook("on_task_start", this.countSources);
    registrar.registerAllowEntityCreationHook(this.allowKnownAirports, "route");
    registrar.registerOnEntityCreationHook(this.describeRoute, "route");
    // Whoever changes the thresholds may want the classes derived anew: `refresh` and `mayChange` say what that touches.
    registrar.registerOnNewAttrHook(this.classifyDelay, "route", "delay", {
      refresh: this.refresh,
      mayChange: [["delay_class"], ["destination", "arrival_delay"]],
    });
    this.registerSnapshotHooks(registrar);
  }

  /**
   * Three hooks that snapshots run, each on what the one before it has made: routes are judged, airports fused from their
   * routes, and routes rated by their airports. Nobody puts them in order: the paths do. A path is an attribute, or links and
   * then an attribute; `departing` leads from an airport to its routes, against the direction of their link.
   */
  private registerSnapshotHooks(registrar: CallbackRegistrar): void {
    // `pure`: what comes out depends on what is declared and nothing else, so it is only made anew when that has changed.
    registrar.registerCorrelationHook(this.rateRisk, "route", {
      dependsOn: [["punctuality"], ["origin", "strain"], ["destination", "strain"]],
      mayChange: [["risk"]],
      pure: true,
    });
    registrar.registerCorrelationHook(this.fuseAirport, "airport", {
      dependsOn: [
        ["departing", "punctuality"],
        ["arriving", "punctuality"],
      ],
      mayChange: [["strain"], ["condition"]],
      pure: true,
    });
    registrar.registerCorrelationHookWithMasterRecord(this.judgeRoute, "route", {
      dependsOn: [["delay"]],
      mayChange: [["punctuality"]],
      pure: true,
    });
  }

  /** Reads `modules/flights.yml`; called at the start, and again when a person reloads the configuration. */
  override loadConfig(_config: PlatformConfig, moduleConfig: ModuleConfig): void {
    this.thresholds = {
      onTimeFrom: minutes(moduleConfig, "on_time_from", 0),
      lateFrom: minutes(moduleConfig, "late_from", 15),
      veryLateFrom: minutes(moduleConfig, "very_late_from", 60),
      busyFrom: share(moduleConfig, "busy_from", 0.2),
      strainedFrom: share(moduleConfig, "strained_from", 0.3),
    };
  }

  override stop(): void {
    this.log.info({ datapoints: Object.fromEntries(this.datapointsBySource) }, "datapoints counted by source");
  }

  /** Runs as every task begins. What it returns is ignored, so it suits statistics. */
  private countSources(task: DataPointTask): void {
    for (const { src } of task.datapoints) {
      const name = src ?? "unknown";
      this.datapointsBySource.set(name, (this.datapointsBySource.get(name) ?? 0) + 1);
    }
  }

  /** Refuses a new route, with all its datapoints, unless both of its airports are known. */
  private async allowKnownAirports(eid: Eid, _task: DataPointTask, ctx: HookContext): Promise<boolean> {
    // Asked anew each time instead of kept in memory: airports live on any node, and nodes restart.
    const records = await Promise.all(airportsOf(eid).map((code) => ctx.get("airport", code)));
    const allowed = records.every((record) => record !== null);
    if (!allowed) ctx.log.debug({ eid }, "route refused: unknown airport");
    return allowed;
  }

  /** Runs once for every new route, and derives what the two airports tell about it. */
  private async describeRoute(eid: Eid, _task: DataPointTask, ctx: HookContext): Promise<DerivedTask[]> {
    const [from, to] = await Promise.all(airportsOf(eid).map((code) => ctx.get("airport", code)));
    if (!from || !to) return [];
    const description = `${from.value("name") ?? from.eid} to ${to.value("name") ?? to.eid}`;
    const distance = greatCircleKm(from, to);
    const datapoints = [{ attr: "description", v: description, src: source }];
    if (distance === null) return [{ type: "route", eid, datapoints }];
    return [{ type: "route", eid, datapoints: [...datapoints, { attr: "distance_km", v: distance, src: source }] }];
  }

  /** Runs for every delay: says how bad it is, and tells the airport at the other end. */
  private classifyDelay(eid: Eid, { v, t1, t2 }: Datapoint): DerivedTask[] {
    const delay = Number(v);
    const { onTimeFrom, lateFrom, veryLateFrom } = this.thresholds;
    const late = delay >= veryLateFrom ? "very_late" : "late";
    const punctual = delay >= onTimeFrom ? "on_time" : "early";
    const delayClass = delay >= lateFrom ? late : punctual;
    const [, destination] = airportsOf(eid);
    // The same validity as the delay itself. Each task is for one entity, and gets to wherever that lives.
    return [
      { type: "route", eid, datapoints: [{ attr: "delay_class", v: delayClass, t1, t2, src: source }] },
      { type: "airport", eid: destination, datapoints: [{ attr: "arrival_delay", v: delay, t1, t2, src: source }] },
    ];
  }

  /**
   * First: how the flights of a route went. A snapshot holds what is current at one instant, and a delay is so for an hour; the
   * master record has all of them.
   */
  private judgeRoute(_type: string, values: SnapshotValues, master: MasterRecord): null {
    const delays = ((master.delay ?? []) as readonly { readonly v: unknown }[]).map(({ v }) => Number(v));
    const late = delays.filter((delay) => delay >= this.thresholds.lateFrom).length;
    const sum = delays.reduce((minutesSoFar, delay) => minutesSoFar + delay, 0);
    // What a hook writes into the values stands in the snapshot. Nothing is stored for the route itself.
    if (delays.length > 0)
      values.punctuality = { flights: delays.length, late, mean_delay: rounded(sum / delays.length) };
    return null;
  }

  /** Second: an airport is as strained as its routes are late, each by the number of its flights. */
  private fuseAirport(_type: string, values: SnapshotValues): null {
    const routes = [...judged(values.departing), ...judged(values.arriving)];
    const flights = routes.reduce((sum, route) => sum + route.flights, 0);
    if (flights === 0) return null;
    const strain = routes.reduce((sum, { late }) => sum + late, 0) / flights;
    const { busyFrom, strainedFrom } = this.thresholds;
    values.strain = rounded(strain);
    values.condition = strain >= strainedFrom ? "strained" : strain >= busyFrom ? "busy" : "calm";
    return null;
  }

  /**
   * Third: how likely the next flight of a route is late. Few flights say little, so the two airports count as much as ten
   * flights of the route itself: the more it has, the more it goes by its own.
   */
  private rateRisk(_type: string, values: SnapshotValues): null {
    const strains = [strainOf(values.origin), strainOf(values.destination)].filter((strain) => strain !== null);
    const { flights = 0, late = 0 } = (values.punctuality ?? {}) as Partial<Punctuality>;
    if (strains.length === 0) return null;
    const around = strains.reduce((sum, strain) => sum + strain, 0) / strains.length;
    values.risk = rounded((late + flightsOfAirports * around) / (flights + flightsOfAirports));
    return null;
  }
}

/** The routes at the other end of a mirror, as far as they are judged. `record` leads to another entity's values. */
function judged(links: unknown): Punctuality[] {
  const routes = (links ?? []) as readonly LinkedValue[];
  return routes.flatMap(({ record }) => (record?.punctuality as Punctuality | undefined) ?? []);
}

/** The strain of the airport that a link leads to; null if it is not known. */
function strainOf(link: unknown): number | null {
  const { record } = (link ?? {}) as Partial<LinkedValue>;
  return typeof record?.strain === "number" ? record.strain : null;
}

/** To three digits: nobody believes more of a forecast. */
function rounded(value: number): number {
  return Math.round(value * 1000) / 1000;
}

/** `ATL-SEA` leads from ATL to SEA. */
function airportsOf(route: Eid): [string, string] {
  const [origin = "", destination = ""] = String(route).split("-");
  return [origin, destination];
}

/** The haversine formula, to a tenth of a kilometre; null when a position is missing. */
function greatCircleKm(from: RecordView, to: RecordView): number | null {
  const degrees = [from.value("latitude"), from.value("longitude"), to.value("latitude"), to.value("longitude")];
  if (degrees.some((value) => value === undefined)) return null;
  const [lat1 = 0, lon1 = 0, lat2 = 0, lon2 = 0] = degrees.map((value) => (Number(value) * Math.PI) / 180);
  const h = Math.sin((lat2 - lat1) / 2) ** 2 + Math.cos(lat1) * Math.cos(lat2) * Math.sin((lon2 - lon1) / 2) ** 2;
  return Math.round(20 * earthRadiusKm * Math.asin(Math.sqrt(h))) / 10;
}

function minutes(moduleConfig: ModuleConfig, key: string, fallback: number): number {
  const value = moduleConfig[key] ?? fallback;
  if (typeof value === "number") return value;
  throw new Error(`modules/flights.yml: ${key} is ${JSON.stringify(value)}, give a number of minutes`);
}

function share(moduleConfig: ModuleConfig, key: string, fallback: number): number {
  const value = moduleConfig[key] ?? fallback;
  if (typeof value === "number" && value >= 0 && value <= 1) return value;
  throw new Error(`modules/flights.yml: ${key} is ${JSON.stringify(value)}, give a number within 0 and 1`);
}
