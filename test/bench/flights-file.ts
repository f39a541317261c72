import { join } from "node:path";
import { asyncBufferFromFile, parquetMetadataAsync, parquetReadObjects } from "hyparquet";
import { compressors } from "hyparquet-compressors";
import type { SourcedFlight } from "../../node/demo/flights-data.ts";
import { repository } from "../support/repository.ts";

/** A row of the file. Whole numbers are of 64 bits. */
interface Row {
  readonly date: Date;
  /** Minutes. */
  readonly delay: bigint;
  /** Miles. */
  readonly distance: bigint;
  readonly origin: string;
  readonly destination: string;
}

const src = "flights-3m.parquet";
const rowsAtOnce = 100_000;

/** How many flights the file has. */
export const flightsMax = 3_000_000;

/**
 * The first flights of the year 2001 from `flights-3m.parquet` of vega-datasets, in order of departure. Of the
 * Bureau of Transportation Statistics, public domain.
 */
export async function* readFlights(count: number): AsyncIterable<SourcedFlight> {
  const file = await asyncBufferFromFile(join(repository, "node_modules/vega-datasets/data", src));
  const metadata = await parquetMetadataAsync(file);
  let last = 0;
  for (let rowStart = 0; rowStart < count; rowStart += rowsAtOnce) {
    const rowEnd = Math.min(count, rowStart + rowsAtOnce);
    const rows = (await parquetReadObjects({ file, metadata, compressors, rowStart, rowEnd })) as unknown as Row[];
    for (const { date, delay, distance, origin, destination } of rows) {
      const at = date.getTime();
      if (at < last) throw new Error(`${src} is not in order of departure: ${date.toISOString()}`);
      last = at;
      yield { src, at, delay: Number(delay), distance: Number(distance), origin, destination };
    }
  }
}
