import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { expect, test } from "vitest";
import { createCounters } from "../../../actors/counters.ts";
import type { OpenBatch } from "../../../actors/sessions/session.ts";
import { createLog } from "../../../node/log.ts";
import { startTracing } from "../../../node/tracing/start-tracing.ts";
import { systemClock } from "../../../proto/clock.ts";

function options(trace: string) {
  const lines: string[] = [];
  const log = createLog({ destination: { write: (line: string) => void lines.push(line) } });
  const counters = createCounters();
  const rest = { ratio: 1, name: "ada", node: "n1", version: "0.1.0", clock: systemClock };
  return { lines, counters, options: { trace, counters, log, ...rest } };
}

const batch = { number: 1, items: 2, bytes: 3, columns: { channel: "c:s", parts: [] } } as unknown as OpenBatch;

test("a collector gets spans over HTTP, with the node's names", async () => {
  const bodies: string[] = [];
  const collector = createServer((request, response) => {
    request.setEncoding("utf8").on("data", (text: string) => bodies.push(text));
    request.on("end", () => response.writeHead(200, { "content-type": "application/json" }).end("{}"));
  });
  await new Promise<void>((resolve) => collector.listen(0, "127.0.0.1", resolve));
  const { port } = collector.address() as AddressInfo;
  const { counters, options: given } = options(`otlp:http://127.0.0.1:${port}/v1/traces`);
  const tracing = await startTracing(given);
  tracing.traces?.batchOpened(batch, null);
  tracing.traces?.batchClosed(batch);
  await tracing.close();
  collector.close();
  const text = bodies.join("");
  for (const part of ['"ingest"', '"starling.node"', '"ada"', '"n1"']) expect(text).toContain(part);
  expect(counters.read()).toMatchObject({ "spans/exported": 1 });
});

test("without its collector a node goes on: what was lost is counted and logged, and its end comes in time", async () => {
  const { counters, lines, options: given } = options("otlp:http://127.0.0.1:1/v1/traces");
  const tracing = await startTracing(given);
  tracing.traces?.batchOpened(batch, null);
  tracing.traces?.batchClosed(batch);
  await tracing.close();
  expect(lines.join("")).toContain("spans were lost");
  expect(counters.read()["spans/exported"]).toBeUndefined();
}, 30_000);

test("a file that cannot be written is named at the start", async () => {
  const { options: given } = options("file:/nowhere/traces.jsonl");
  await expect(startTracing(given)).rejects.toMatchObject({
    code: "CONFIG",
    message: expect.stringContaining("traces cannot be written to /nowhere/traces.jsonl"),
  });
});
