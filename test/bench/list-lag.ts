import { setTimeout as delay } from "node:timers/promises";
import { connect } from "../../proto/client.ts";

const everyMs = 250;

/** Asks a node for a list again and again while something runs; how old each answer was when it came, in ms. */
export async function whileListing<T>(address: string, type: string, during: () => Promise<T>) {
  await using client = await connect({ address });
  const lags: number[] = [];
  let status: "running" | "ended" = "running";
  const listing = (async () => {
    while (status === "running") {
      const { asOf } = await client.entities.list({ type, limit: 1 });
      lags.push(Date.now() - asOf);
      await delay(everyMs);
    }
  })();
  try {
    return { result: await during(), lags };
  } finally {
    status = "ended";
    await listing;
  }
}
