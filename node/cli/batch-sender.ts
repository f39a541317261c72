import type { Client } from "../../proto/client.ts";
import type { ClientDatapoint } from "../../proto/client-batch.ts";
import { wireBytesMax } from "./client-datapoint.ts";
import type { Place, SendTally } from "./send-tally.ts";

/** Cuts datapoints into batches and sends them, several in flight. */
export interface BatchSender {
  /** Takes a datapoint; a promise when there is no room: wait for it. */
  add(datapoint: ClientDatapoint, place: Place): Promise<void> | null;
  /** Sends what is left, and waits for every answer. */
  finish(): Promise<void>;
}

export interface BatchSenderOptions {
  readonly client: Client;
  readonly batchMaxItems: number;
  readonly tally: SendTally;
}

/**
 * Below the 4 MiB at which the client splits a batch. The same input is always cut at the same places, so that in a
 * named session a batch's number follows from its position.
 */
const batchMaxBytes = 3.5 * 1024 * 1024;
const pendingMax = 64;

export function createBatchSender(options: BatchSenderOptions): BatchSender {
  const pending = new Set<Promise<void>>();
  let failure: { readonly error: unknown } | null = null;
  let datapoints: ClientDatapoint[] = [];
  let places: Place[] = [];
  let bytes = 0;

  const ship = async (): Promise<void> => {
    if (datapoints.length > 0) {
      const answered = sendBatch(options, datapoints, places)
        .catch((error: unknown) => {
          failure ??= { error };
        })
        .finally(() => pending.delete(answered));
      pending.add(answered);
      datapoints = [];
      places = [];
      bytes = 0;
    }
    if (pending.size >= pendingMax) await Promise.race(pending);
    if (failure !== null) throw failure.error;
  };

  return {
    add: (datapoint, place) => {
      const size = wireBytesMax(datapoint);
      const full =
        datapoints.length >= options.batchMaxItems || (datapoints.length > 0 && bytes + size > batchMaxBytes);
      const shipped = full ? ship() : null;
      datapoints.push(datapoint);
      places.push(place);
      bytes += size;
      return shipped;
    },
    finish: async () => {
      await ship();
      await Promise.all(pending);
      if (failure !== null) throw failure.error;
    },
  };
}

async function sendBatch(
  { client, tally }: BatchSenderOptions,
  datapoints: readonly ClientDatapoint[],
  places: readonly Place[],
): Promise<void> {
  const { accepted, rejections } = await client.send(datapoints);
  tally.accepted(accepted);
  for (const { index, code, message } of rejections) {
    tally.rejected(code, message, places[index] ?? { file: "?", line: 0 });
  }
}
