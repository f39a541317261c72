import type { LooseDatapoint } from "../../modules/datapoint.ts";
import type { Client } from "../../proto/client.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import { airportDatapoints, flightDatapoints } from "../demo/flights-data.ts";
import { createBatchSender } from "./batch-sender.ts";
import { toClientDatapoint } from "./client-datapoint.ts";
import type { Progress } from "./progress.ts";
import { createSendTally, type SendCounts } from "./send-tally.ts";

/** What feeding the example came to; kept, so that a second start can tell it. */
export interface FeedResult {
  readonly sent: number;
  readonly accepted: number;
  readonly rejected: number;
  readonly codes: SendCounts["codes"];
  /** From the first datapoint sent to the last one processed. */
  readonly elapsedMs: number;
  readonly refusedRoutes: readonly string[];
  /** Datapoints of these routes. */
  readonly refusedDatapoints: number;
}

const inventedSource = "invented-flights.json";

/**
 * Sends the data of the flights example: the airports, and when these are processed, the flights. The client's session
 * must be named and wait for `processed`, so that feeding again after a crash doubles nothing. Null when interrupted.
 */
export async function feedFlights(
  client: Client,
  dataDir: string,
  { progress, signal }: { readonly progress: Progress; readonly signal: AbortSignal },
): Promise<FeedResult | null> {
  const airports = await collect(airportDatapoints(dataDir));
  const flights = await collect(flightDatapoints(dataDir));
  const total = airports.length + flights.length;
  const tally = createSendTally();
  const started = performance.now();
  let done = 0;
  for (const part of [airports, flights]) {
    const sender = createBatchSender({ client, batchMaxItems: 500, tally });
    for (const loose of part) {
      done += 1;
      await sender.add(toClientDatapoint(loose), { file: String(loose.src), line: done });
      // What was not sent stays so: half a batch under this number would not be the one that another start sends.
      if (signal.aborted) {
        progress.clear();
        return null;
      }
      if (done % 500 === 0) progress.update({ done, total, datapoints: tally.read().sent });
    }
    await sender.finish();
  }
  const elapsedMs = performance.now() - started;
  progress.clear();
  const { sent, accepted, rejected, codes } = tally.read();
  return { sent, accepted, rejected, codes, elapsedMs, ...(await findRefused(client, flights)) };
}

/** The invented flights' routes that do not exist now: the module refused them. */
async function findRefused(client: Client, flights: readonly LooseDatapoint[]) {
  const invented = flights.filter(({ type, src }) => type === "route" && src === inventedSource);
  const routes = [...new Set(invented.map(({ eid }) => String(eid)))];
  const missing = await Promise.all(routes.map(async (eid) => ((await isThere(client, eid)) ? [] : [eid])));
  const refusedRoutes = missing.flat();
  const refused = new Set(refusedRoutes);
  return { refusedRoutes, refusedDatapoints: invented.filter(({ eid }) => refused.has(String(eid))).length };
}

async function isThere(client: Client, eid: string): Promise<boolean> {
  try {
    await client.entities.get({ type: "route", eid });
    return true;
  } catch (error) {
    if (error instanceof StarlingError && error.code === "NOT_FOUND") return false;
    throw error;
  }
}

async function collect(parts: AsyncIterable<LooseDatapoint[]>): Promise<LooseDatapoint[]> {
  const all: LooseDatapoint[] = [];
  for await (const part of parts) all.push(...part);
  return all;
}
