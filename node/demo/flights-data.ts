import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { parse } from "csv-parse/sync";
import type { LooseDatapoint } from "../../modules/datapoint.ts";

/** A row of `flights-20k.json` and `invented-flights.json`. The date is the departure, taken as UTC. */
interface Flight {
  readonly date: string;
  /** Minutes. */
  readonly delay: number;
  /** Miles. */
  readonly distance: number;
  readonly origin: string;
  readonly destination: string;
}

/** A flight, whatever file it is from. */
export interface SourcedFlight extends Omit<Flight, "date"> {
  readonly src: string;
  /** Departure, Unix ms. */
  readonly at: number;
}

/** What the departures of one airport and day have come to so far. */
interface Departures {
  readonly src: string;
  readonly time: number[];
  readonly delay: number[];
  readonly distance: number[];
}

const flightFiles = ["flights-20k.json", "invented-flights.json"];
const airportFile = "airports.csv";
const delayValidMs = 3_600_000;
const dayMs = 86_400_000;

/**
 * The datapoints of the flights example, the same in every run: all airports, then the flights in order of departure,
 * among them the invented ones, whose airports do not exist, and at the end of each day the departures of each airport.
 * Each array is of one airport or one flight. The module refuses routes whose airports are unknown, so send
 * {@link airportDatapoints}, wait until they are processed, then send {@link flightDatapoints}.
 */
export async function* flightsDatapoints(dataDir: string): AsyncIterable<LooseDatapoint[]> {
  yield* airportDatapoints(dataDir);
  yield* flightDatapoints(dataDir);
}

/** The first half of {@link flightsDatapoints}: one array per airport. */
export async function* airportDatapoints(dataDir: string): AsyncIterable<LooseDatapoint[]> {
  for (const { iata = "", ...row } of await readAirports(dataDir)) {
    const airport = { type: "airport", eid: iata, src: airportFile };
    const texts = (["name", "city", "state", "country"] as const).filter((attr) => row[attr] !== "NA");
    yield [
      ...texts.map((attr) => ({ ...airport, attr, v: row[attr] })),
      { ...airport, attr: "latitude", v: Number(row.latitude) },
      { ...airport, attr: "longitude", v: Number(row.longitude) },
    ];
  }
}

/** The second half of {@link flightsDatapoints}: one array per flight, and per airport and day. */
export async function* flightDatapoints(dataDir: string): AsyncIterable<LooseDatapoint[]> {
  const flights = (await Promise.all(flightFiles.map((file) => readFlights(dataDir, file)))).flat();
  flights.sort((a, b) => a.at - b.at);
  yield* datapointsOf(flights, dataDir);
}

/** The same of other flights, which are in order of departure; `dataDir` has the airports. */
export async function* datapointsOf(
  flights: Iterable<SourcedFlight> | AsyncIterable<SourcedFlight>,
  dataDir: string,
): AsyncIterable<LooseDatapoint[]> {
  const airports = new Set((await readAirports(dataDir)).map(({ iata }) => iata));
  const routes = new Set<string>();
  let departures = new Map<string, Departures>();
  let day = 0;
  for await (const flight of flights) {
    const dayOfFlight = Math.floor(flight.at / dayMs);
    if (dayOfFlight !== day) {
      yield* departureDatapoints(departures);
      departures = new Map();
      day = dayOfFlight;
    }
    const route = `${flight.origin}-${flight.destination}`;
    yield ofFlight(route, flight, !routes.has(route));
    routes.add(route);
    // A time series for an airport that does not exist would create it.
    if (airports.has(flight.origin) && airports.has(flight.destination)) addDeparture(departures, flight);
  }
  yield* departureDatapoints(departures);
}

/** A flight is a delay of its route; the first one also says what the route is. */
function ofFlight(eid: string, flight: SourcedFlight, isFirst: boolean): LooseDatapoint[] {
  const route = { type: "route", eid, src: flight.src };
  const delay = { ...route, attr: "delay", v: flight.delay, t1: flight.at, t2: flight.at + delayValidMs };
  if (!isFirst) return [delay];
  return [
    { ...route, attr: "origin", v: { eid: flight.origin } },
    { ...route, attr: "destination", v: { eid: flight.destination } },
    { ...route, attr: "distance_miles", v: flight.distance },
    delay,
  ];
}

function addDeparture(departures: Map<string, Departures>, flight: SourcedFlight): void {
  const ofAirport = departures.get(flight.origin) ?? { src: flight.src, time: [], delay: [], distance: [] };
  ofAirport.time.push(flight.at);
  ofAirport.delay.push(flight.delay);
  ofAirport.distance.push(flight.distance);
  departures.set(flight.origin, ofAirport);
}

function* departureDatapoints(departures: ReadonlyMap<string, Departures>): Iterable<LooseDatapoint[]> {
  for (const [eid, { src, time, delay, distance }] of departures) {
    const v = { time: time.map((at) => new Date(at).toISOString()), delay, distance };
    yield [{ type: "airport", eid, attr: "departures", v, t1: time[0], t2: time.at(-1), src }];
  }
}

async function readAirports(dataDir: string): Promise<Record<string, string>[]> {
  return parse(await readFile(join(dataDir, airportFile), "utf8"), { columns: true, skip_empty_lines: true });
}

async function readFlights(dataDir: string, file: string): Promise<SourcedFlight[]> {
  const flights: Flight[] = JSON.parse(await readFile(join(dataDir, file), "utf8"));
  return flights.map(({ date, ...flight }) => {
    const at = Date.parse(`${date.replaceAll("/", "-").replace(" ", "T")}Z`);
    return { ...flight, src: file, at };
  });
}
