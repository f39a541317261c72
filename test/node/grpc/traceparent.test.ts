import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { credentials, Client as GrpcClient, Metadata } from "@grpc/grpc-js";
import { expect, test } from "vitest";
import { type BatchMeter, createBatchMeter } from "../../../actors/sessions/batch-meter.ts";
import { connect } from "../../../proto/client.ts";
import { toWireValue } from "../../../proto/client-batch.ts";
import { systemClock } from "../../../proto/clock.ts";
import { SendReplySchema, SendRequestSchema } from "../../../proto/gen/starling_pb.ts";
import { createFakeEngine } from "../../support/fake-engine.ts";
import { startEdge } from "../../support/grpc-edge.ts";

const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/** An edge that notes under which trace batches are opened, and how many are open. */
async function startNoting() {
  const engine = createFakeEngine();
  const noted: (string | null)[] = [];
  let open = 0;
  const counting = createBatchMeter({ counters: engine.counters, clock: systemClock });
  const meter: BatchMeter = {
    ...counting,
    opened: (batch, parent) => {
      open++;
      noted.push(parent);
      counting.opened(batch, parent);
    },
    closed: (batch) => {
      open--;
      counting.closed(batch);
    },
  };
  const server = await startEdge(engine, { meter });
  return { engine, server, noted, open: () => open };
}

function callSend(address: string, metadata: Metadata): Promise<unknown> {
  const client = new GrpcClient(address, credentials.createInsecure());
  const datapoints = [{ type: "thing", eid: "a", attr: "name", v: toWireValue("x") }];
  const request = create(SendRequestSchema, { datapoints });
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest(
      "/starling.v1.Ingest/Send",
      (message: typeof request) => Buffer.from(toBinary(SendRequestSchema, message)),
      (bytes: Buffer) => fromBinary(SendReplySchema, new Uint8Array(bytes)),
      request,
      metadata,
      (error, reply) => {
        client.close();
        if (error === null) resolve(reply);
        else reject(error);
      },
    );
  });
}

test("a call and a stream bring the trace of their client, or none, and every batch is closed", async () => {
  const { engine, server, noted, open } = await startNoting();
  const metadata = new Metadata();
  metadata.set("traceparent", traceparent);
  await callSend(server.address, metadata);
  await callSend(server.address, new Metadata());
  for (const options of [{ traceparent }, {}]) {
    await using client = await connect({ address: server.address, ...options });
    await client.send([{ type: "thing", eid: "a", attr: "name", v: "x" }]);
  }
  expect(noted).toEqual([traceparent, null, traceparent, null]);
  expect(open()).toBe(0);
  expect(engine.counters.read()).toMatchObject({ batches: 4, "datapoints/accepted": 4 });
  await server.close();
});

test("batches of a stream that is cut are closed, too", async () => {
  const { engine, server, noted, open } = await startNoting();
  engine.hold();
  const client = await connect({ address: server.address, giveUpAfterMs: 50 });
  const sent = client.send([{ type: "thing", eid: "a", attr: "name", v: "x" }]).catch((error: unknown) => error);
  await expect.poll(() => noted.length, { timeout: 30_000 }).toBe(1);
  expect(open()).toBe(1);
  await server.close();
  await sent;
  expect(open()).toBe(0);
});
