import {
  BaseModule,
  type CallbackRegistrar,
  type LinkedValue,
  type MasterRecord,
  type ModuleConfig,
  type PlatformConfig,
  type SnapshotValue,
  type SnapshotValues,
} from "starling/modules";

/**
 * What a city wants to know of its buses at one instant. Each hook writes values into snapshots, and others go on with them
 * over links: from buses to their lines, back to the buses, and on to the boards at the stops.
 */
export class City extends BaseModule {
  // `declare`: loadConfig fills it during super(…), and a field's initial value would come after that.
  declare private slowBelow: number;

  constructor(platformConfig: PlatformConfig, moduleConfig: ModuleConfig, registrar: CallbackRegistrar) {
    super(platformConfig, moduleConfig, registrar);
    // All of these depend on what they declare and nothing else: `pure`. They run where that has changed.
    registrar.registerCorrelationHookWithMasterRecord(this.countPassengers, "bus", {
      dependsOn: [["label"]],
      mayChange: [["on_board"]],
    });
    registrar.registerCorrelationHook(this.findNearStop, "bus", {
      dependsOn: [["location"], ["line", "stops", "position"]],
      mayChange: [["near_stop"], ["near_stop_km"]],
      pure: true,
    });
    // `buses` is a mirror: from a line to the buses that link to it.
    registrar.registerCorrelationHook(this.judgeLine, "line", {
      dependsOn: [
        ["buses", "speed"],
        ["buses", "on_board"],
      ],
      mayChange: [["buses_running"], ["passengers"], ["mean_speed"], ["state"]],
      pure: true,
    });
    // Runs after both hooks above, since they may change what it reads. The order of these calls does not matter.
    registrar.registerCorrelationHook(this.foretellArrival, "bus", {
      dependsOn: [["speed"], ["near_stop_km"], ["line", "mean_speed"]],
      mayChange: [["arrival_min"]],
      pure: true,
    });
    registrar.registerCorrelationHook(this.writeBoard, "stop", {
      dependsOn: [
        ["lines", "buses", "near_stop"],
        ["lines", "buses", "arrival_min"],
      ],
      mayChange: [["board"]],
      pure: true,
    });
  }

  /** Reads `modules/city.yml`. */
  override loadConfig(_config: PlatformConfig, moduleConfig: ModuleConfig): void {
    this.slowBelow = Number(moduleConfig.slow_below ?? 12);
  }

  /** Who got in and did not get out: from the whole time series, so it asks for the master record. */
  private countPassengers(_type: string, values: SnapshotValues, master: MasterRecord): void {
    const chunks = Array.isArray(master.passengers) ? master.passengers : [];
    const sums = chunks.map(({ v }: { v: unknown }) => {
      const { in: entered, out } = v as { in: number[]; out: number[] };
      return sum(entered) - sum(out);
    });
    if (sums.length > 0) values.on_board = sum(sums);
  }

  /** The stop of its line that a bus is nearest to. A bus that has not told where it is for two minutes is nowhere. */
  private findNearStop(_type: string, values: SnapshotValues): void {
    const stops = recordsOf(values.line).flatMap((line) => recordsOf(line.stops));
    const here = positionOf(values.location);
    let best = Number.POSITIVE_INFINITY;
    for (const stop of stops) {
      const there = positionOf(stop.position);
      if (here === null || there === null) continue;
      const km = kilometres(here, there);
      if (km >= best) continue;
      best = km;
      values.near_stop = { eid: stop.eid };
      values.near_stop_km = Math.round(km * 100) / 100;
    }
  }

  /** A line is as fast as its buses. */
  private judgeLine(_type: string, values: SnapshotValues): void {
    const running = recordsOf(values.buses).filter(({ speed }) => typeof speed === "number");
    const speed = sum(running.map((bus) => Number(bus.speed))) / running.length;
    values.buses_running = running.length;
    values.passengers = sum(running.map((bus) => Number(bus.on_board ?? 0)));
    values.state = running.length === 0 ? "idle" : speed < this.slowBelow ? "slow" : "flowing";
    if (running.length > 0) values.mean_speed = Math.round(speed * 10) / 10;
  }

  /** When a bus will be at its stop, at its speed; one that just stands goes on as fast as its line. */
  private foretellArrival(_type: string, values: SnapshotValues): void {
    const [line] = recordsOf(values.line);
    const kmPerHour = Math.max(Number(values.speed ?? 0), Number(line?.mean_speed ?? 0) / 2);
    if (typeof values.near_stop_km !== "number" || kmPerHour <= 0) return;
    values.arrival_min = Math.round((values.near_stop_km / kmPerHour) * 600) / 10;
  }

  /** The next buses of all lines of a stop: `7 in 2 min`. */
  private writeBoard(_type: string, values: SnapshotValues): void {
    const coming = recordsOf(values.lines).flatMap((line) =>
      recordsOf(line.buses)
        .filter((bus) => linkOf(bus.near_stop) === values.eid && typeof bus.arrival_min === "number")
        .map((bus) => ({ line: line.eid, minutes: Number(bus.arrival_min) })),
    );
    coming.sort((a, b) => a.minutes - b.minutes || Number(a.line) - Number(b.line));
    values.board = coming.map(({ line, minutes }) => `${line} in ${Math.round(minutes)} min`);
  }
}

/** The records behind a link or a list of links, as far as paths lead there. */
function recordsOf(value: SnapshotValue | undefined): SnapshotValues[] {
  const links = (Array.isArray(value) ? value : [value]) as (LinkedValue | null | undefined)[];
  return links.flatMap((link) => link?.record ?? []);
}

function linkOf(value: SnapshotValue | undefined): unknown {
  return (value as LinkedValue | null | undefined)?.eid;
}

/** Latitude and longitude; null where there are none. */
function positionOf(value: SnapshotValue | undefined): readonly [number, number] | null {
  if (!Array.isArray(value) || value.length !== 2) return null;
  return [Number(value[0]), Number(value[1])];
}

/** Between places of one city the earth is flat. */
function kilometres([lat1, lon1]: readonly [number, number], [lat2, lon2]: readonly [number, number]): number {
  const perDegree = 111.2;
  const x = (lon2 - lon1) * Math.cos((lat1 * Math.PI) / 180);
  return Math.hypot(x, lat2 - lat1) * perDegree;
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}
