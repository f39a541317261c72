import { connect } from "../../proto/client.ts";
import { rssMb } from "../support/process-usage.ts";

/** Resident memory of a process over time, once a second. */
export interface MemoryWatch {
  /** The highest between two times, in seconds since the watch began. */
  peakBetween(fromS: number, toS: number): number;
  stop(): void;
}

const everyMs = 1000;

/** Begins to watch. */
export function watchMemory(pid: number): MemoryWatch {
  const samples: number[] = [];
  const sample = (): void => {
    samples.push(rssMb(pid));
  };
  sample();
  const timer = setInterval(sample, everyMs);
  return {
    peakBetween: (fromS, toS) => Math.max(...samples.slice(Math.floor(fromS), Math.max(fromS + 1, Math.ceil(toS)))),
    stop: () => clearInterval(timer),
  };
}

/** Entities that a node has in memory. */
export async function residentEntities(address: string): Promise<number> {
  await using client = await connect({ address });
  const { shards } = await client.admin.status();
  return shards.reduce((sum, { residentEntities: residents }) => sum + residents, 0);
}
