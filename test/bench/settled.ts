import { setTimeout as delay } from "node:timers/promises";
import { connect } from "../../proto/client.ts";

const settledWithinMs = 600_000;

/** Waits until every shard's watermark stands at its last seq and nothing is on its way to another. */
export async function untilSettled(address: string): Promise<void> {
  await using client = await connect({ address });
  const deadline = performance.now() + settledWithinMs;
  while (performance.now() < deadline) {
    const { shards } = await client.admin.status();
    if (shards.every(({ lastSeq, watermark, undelivered }) => watermark >= lastSeq && undelivered === 0)) return;
    await delay(20);
  }
  throw new Error(`the node was not done within ${settledWithinMs} ms`);
}
