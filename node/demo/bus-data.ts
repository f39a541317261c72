import type { LooseDatapoint } from "../../modules/datapoint.ts";

/** A line of the invented city: stops on a ring of its own, which all begin at the central station. */
interface Line {
  readonly number: number;
  readonly name: string;
  readonly stops: readonly Stop[];
  /** Buses by plate, and how fast each is, in kilometres an hour. */
  readonly buses: readonly Bus[];
}

interface Stop {
  readonly eid: string;
  readonly name: string;
  readonly position: Position;
}

interface Bus {
  readonly plate: string;
  readonly kmPerHour: number;
  /** Where on the ring it began, as a share of it. */
  readonly start: number;
}

/** Latitude and longitude in degrees. */
type Position = readonly [number, number];

const centre: Position = [49.195, 16.608];
const kmPerDegree = 111.2;
const minuteMs = 60_000;
/** Buses tell where they are every thirty seconds, and the data begin twenty minutes ago. */
const everyMs = 30_000;
const lastMs = 20 * minuteMs;
const chunkMs = 2 * 60 * minuteMs;
const chunkSteps = 12;
const source = "city";

const names = ["Castle", "Market", "Library", "River", "Park", "Hospital", "Stadium", "Mill", "Old Town", "University"];
const drivers = ["Alice", "Bohumil", "Clara", "David", "Ester", "Filip", "Greta", "Hugo", "Iva"];

/**
 * The datapoints of the bus example until a time (Unix ms), the same for the same time: stops, lines, drivers and buses, then
 * what the buses told over the last twenty minutes, and who got in and out over two hours. Each array is of one entity.
 */
export function* busDatapoints(until: number): Iterable<LooseDatapoint[]> {
  const lines = [makeLine(1, 3, 24), makeLine(7, 4, 19), makeLine(12, 2, 6)];
  const stops = new Map(lines.flatMap(({ stops: all }) => all.map((stop) => [stop.eid, stop] as const)));
  for (const { eid, name, position } of stops.values()) {
    const stop = { type: "stop", eid, src: source };
    yield [
      { ...stop, attr: "name", v: name },
      { ...stop, attr: "position", v: position },
    ];
  }
  for (const { number, name, stops: all } of lines) {
    const line = { type: "line", eid: number, src: source };
    const v = all.map(({ eid }) => ({ eid }));
    yield [
      { ...line, attr: "name", v: name },
      { ...line, attr: "stops", v },
    ];
  }
  for (const [i, name] of drivers.entries()) yield [{ type: "driver", eid: i + 1, src: source, attr: "name", v: name }];
  let driver = 0;
  for (const line of lines) {
    for (const bus of line.buses) {
      driver += 1;
      yield* ofBus(line, bus, { driver, until });
    }
  }
}

function* ofBus(
  line: Line,
  { plate, kmPerHour, start }: Bus,
  { driver, until }: { readonly driver: number; readonly until: number },
): Iterable<LooseDatapoint[]> {
  const bus = { type: "bus", eid: plate, src: source };
  yield [
    { ...bus, attr: "label", v: `${line.name}, ${plate}` },
    { ...bus, attr: "line", v: { eid: line.number } },
    { ...bus, attr: "driver", v: { eid: driver } },
  ];
  for (let at = until - lastMs; at <= until; at += everyMs) {
    const km = (kmPerHour * (at - (until - lastMs))) / (60 * minuteMs);
    const wave = Math.sin((at - until) / everyMs + start * 10);
    yield [
      { ...bus, attr: "location", v: placeOn(line, start, km), t1: at, t2: at + everyMs },
      { ...bus, attr: "speed", v: round(kmPerHour * (1 + wave / 5), 1), t1: at, t2: at + everyMs },
    ];
  }
  // More get in than out until the bus is about half full.
  const begin = until - chunkMs;
  const entered = Array.from({ length: chunkSteps }, (_, i) => 4 + ((i * 5 + driver * 3) % 7));
  const out = entered.map((count, i) => (i === 0 ? 0 : Math.max(0, count - 2 - ((i + driver) % 2))));
  yield [{ ...bus, attr: "passengers", v: { in: entered, out }, t1: begin, t2: until }];
}

function makeLine(number: number, buses: number, kmPerHour: number): Line {
  const around = 8;
  const stops = Array.from({ length: around }, (_, i): Stop => {
    const name = i === 0 ? "Central Station" : `${names[(number + i) % names.length]} ${number}`;
    return { eid: i === 0 ? "central" : `${number}-${i}`, name, position: onRing(number, i / around) };
  });
  return {
    number,
    name: `Line ${number}`,
    stops,
    buses: Array.from({ length: buses }, (_, i) => ({
      plate: `${number}B ${String(1000 + number * 37 + i * 11)}`,
      kmPerHour: kmPerHour + i,
      start: i / buses,
    })),
  };
}

/** Every ring touches the centre, in a direction of its own. */
function onRing(number: number, share: number): Position {
  const [lat, lon] = centre;
  const km = ringKm(number) / (2 * Math.PI);
  const direction = number * 2;
  const angle = direction + Math.PI + share * 2 * Math.PI;
  const north = km * (Math.sin(direction) + Math.sin(angle));
  const east = km * (Math.cos(direction) + Math.cos(angle));
  return [round(lat + north / kmPerDegree, 6), round(lon + east / (kmPerDegree * Math.cos((lat * Math.PI) / 180)), 6)];
}

function placeOn({ number }: Line, start: number, km: number): Position {
  return onRing(number, (start + km / ringKm(number)) % 1);
}

function ringKm(number: number): number {
  return 6 + (number % 5);
}

function round(value: number, digits: number): number {
  const factor = 10 ** digits;
  return Math.round(value * factor) / factor;
}
