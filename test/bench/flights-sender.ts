import { toClientDatapoint } from "../../node/cli/client-datapoint.ts";
import { airportDatapoints, datapointsOf } from "../../node/demo/flights-data.ts";
import { type Client, connect } from "../../proto/client.ts";
import type { ClientDatapoint } from "../../proto/client-batch.ts";
import { readFlights } from "./flights-file.ts";
import { FlightsTally } from "./flights-tally.ts";

/*
 * The client process of `flights`: sends the example's airports and then the first flights of the file, and prints one line
 * of JSON. Started as `node flights-sender.js ADDRESS DATA_DIR FLIGHTS`.
 */
export interface FlightsReport {
  /** Datapoints of flights. */
  readonly sent: number;
  /** Unix ms of the first one's sending. */
  readonly startedAt: number;
  /** From then to the last durable acknowledgement. */
  readonly ackedS: number;
  /** Of each batch, from its sending to its durable acknowledgement. */
  readonly ackMs: readonly number[];
  readonly cpuS: number;
  /** How many datapoints an attribute gets, by type, eid and attribute. */
  readonly expected: readonly (readonly [key: string, count: number])[];
}

const batchSize = 1000;

const [address = "", dataDir = "", flights = "0"] = process.argv.slice(2);
process.stdout.write(`${JSON.stringify(await main(Number(flights)))}\n`);

async function main(count: number): Promise<FlightsReport> {
  const tally = new FlightsTally();
  // Numbers of batches begin at 1.
  const sentAt = [0];
  const ackMs: number[] = [];
  let lastDurable = 0;
  await using client = await connect({
    address,
    level: "processed",
    onAck: ({ level, first, last }) => {
      if (level !== "durable") return;
      lastDurable = performance.now();
      for (let number = first; number <= last; number++) ackMs.push(lastDurable - (sentAt[number] ?? lastDurable));
    },
  });
  const airports = [];
  for await (const airport of airportDatapoints(dataDir)) airports.push(...airport);
  tally.addAirports(airports);
  await write(client, sentAt, airports.map(toClientDatapoint));
  await client.flush();
  ackMs.length = 0;
  const cpu = process.cpuUsage();
  const [startedAt, started] = [Date.now(), performance.now()];
  let batch: ClientDatapoint[] = [];
  let sent = 0;
  for await (const datapoints of datapointsOf(readFlights(count), dataDir)) {
    for (const datapoint of datapoints) tally.add(datapoint);
    batch.push(...datapoints.map(toClientDatapoint));
    if (batch.length < batchSize) continue;
    sent += batch.length;
    await write(client, sentAt, batch);
    batch = [];
  }
  sent += batch.length;
  await write(client, sentAt, batch);
  const { rejected } = await client.flush();
  if (rejected > 0) throw new Error(`${rejected} datapoints were rejected`);
  const used = process.cpuUsage(cpu);
  return {
    ...{ sent, startedAt, ackedS: (lastDurable - started) / 1000, ackMs },
    ...{ cpuS: (used.user + used.system) / 1e6, expected: [...tally.counts] },
  };
}

async function write(client: Client, sentAt: number[], batch: readonly ClientDatapoint[]): Promise<void> {
  for (let from = 0; from < batch.length; from += batchSize) {
    sentAt.push(performance.now());
    await client.write(batch.slice(from, from + batchSize));
  }
}
