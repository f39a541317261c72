import {
  BaseModule,
  type CallbackRegistrar,
  type DataPointTask,
  type Datapoint,
  type DerivedTask,
  type Eid,
  type HookContext,
  type ModuleConfig,
  type PlatformConfig,
  type RecordView,
} from "starling/modules";

interface Thresholds {
  readonly onTimeFrom: number;
  readonly lateFrom: number;
  readonly veryLateFrom: number;
}

const source = "module:flights";
const earthRadiusKm = 6371;

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
  }

  /** Reads `modules/flights.yml`; called at the start, and again when a person reloads the configuration. */
  override loadConfig(_config: PlatformConfig, moduleConfig: ModuleConfig): void {
    this.thresholds = {
      onTimeFrom: minutes(moduleConfig, "on_time_from", 0),
      lateFrom: minutes(moduleConfig, "late_from", 15),
      veryLateFrom: minutes(moduleConfig, "very_late_from", 60),
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
