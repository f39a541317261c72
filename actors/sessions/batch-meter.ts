import type { Clock } from "../../proto/clock.ts";
import type { Counters } from "../counters.ts";
import type { Traces } from "../traces.ts";
import { acceptedOf, type OpenBatch } from "./session.ts";

/** Counts what comes of the batches at a node's edge, and how long that takes: per batch, never per datapoint. */
export interface BatchMeter {
  /** A batch has arrived and was checked, and is not offered yet; `traceparent`: its sender's trace, null if there is none. */
  opened(batch: OpenBatch, traceparent: string | null): void;
  /** Its sender is told that it is durable. */
  durable(batch: OpenBatch): void;
  /** Its sender is told that it is processed. */
  processed(batch: OpenBatch): void;
  /** Nobody waits for it any more. */
  closed(batch: OpenBatch): void;
}

export interface BatchMeterOptions {
  readonly counters: Counters;
  readonly clock: Clock;
  readonly traces?: Traces | undefined;
}

/** A meter of all batches of one node. Who opens a batch closes it. */
export function createBatchMeter({ counters, clock, traces }: BatchMeterOptions): BatchMeter {
  const arrivals = new Map<OpenBatch, number>();
  const batches = counters.counter("batches");
  const accepted = counters.counter("datapoints/accepted");
  const durableSeconds = counters.histogram("ack_seconds/durable");
  const processedSeconds = counters.histogram("ack_seconds/processed");
  const secondsOf = (batch: OpenBatch): number => (clock.now() - (arrivals.get(batch) ?? clock.now())) / 1000;
  return {
    opened: (batch, traceparent) => {
      traces?.batchOpened(batch, traceparent);
      arrivals.set(batch, clock.now());
      batches.value++;
    },
    durable: (batch) => {
      traces?.batchAcked(batch, "durable");
      accepted.value += acceptedOf(batch);
      durableSeconds.observe(secondsOf(batch));
      const { rejections, whole, items } = batch;
      if (whole) counters.add(`datapoints/${rejections[0]?.code}`, items);
      else for (const { code } of rejections) counters.add(`datapoints/${code}`);
    },
    processed: (batch) => {
      traces?.batchAcked(batch, "processed");
      processedSeconds.observe(secondsOf(batch));
    },
    closed: (batch) => {
      traces?.batchClosed(batch);
      arrivals.delete(batch);
    },
  };
}
