import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { SpanLine } from "../../node/tracing/file-exporter.ts";
import { connect } from "../../proto/client.ts";
import { startTestCluster, type TestCluster } from "../support/cluster/test-cluster.ts";
import { readExposition } from "../support/exposition.ts";

/** What two real nodes tell of themselves. They write traces to files. Hooks derive mirrors from probes, and totals from mirrors. */
const names = ["node-a", "node-b"];
let folder = "";
let cluster: TestCluster;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "starling-traces-"));
  cluster = await startTestCluster({ nodes: 0 });
  for (const name of names) {
    await cluster.add(name, { flags: ["--trace", `file:${fileOf(name)}`, "--trace-ratio", "0"] });
  }
  await Promise.all(cluster.nodes.map((node) => node.start()));
}, 120_000);

afterAll(async () => {
  await cluster?.close();
  await rm(folder, { recursive: true, force: true });
});

function fileOf(name: string): string {
  return join(folder, `${name}.jsonl`);
}

async function spans(): Promise<SpanLine[]> {
  const texts = await Promise.all(names.map((name) => readFile(fileOf(name), "utf8")));
  const lines = texts.flatMap((text) => text.split("\n").filter((line) => line !== ""));
  return lines.map((line) => JSON.parse(line) as SpanLine);
}

async function send(first: number, traceparent?: string): Promise<void> {
  await using client = await connect({
    addresses: [cluster.addresses[0] ?? ""],
    level: "processed",
    ...(traceparent !== undefined && { traceparent }),
  });
  const probes = Array.from({ length: 30 }, (_, index) => {
    return { type: "probe", eid: `p${first + index}`, attr: "number", v: 5, t1: 1000 + index };
  });
  const { accepted } = await client.send(probes);
  expect(accepted).toBe(30);
}

const trace = "0af7651916cd43dd8448eb211c80319c";
const caller = "b7ad6b7169203331";

test("one trace follows a datapoint from its client over two nodes to what was derived of what was derived", async () => {
  await send(100);
  await send(200, `00-${trace}-${caller}-00`);
  await send(300, `00-${trace}-${caller}-01`);
  const total = (span: SpanLine) => span.name === "process" && span.attributes["starling.type"] === "total";
  await expect.poll(async () => (await spans()).filter(total).length, { timeout: 30_000 }).toBe(8);
  await expect
    .poll(async () => (await spans()).filter(({ name }) => name === "ingest").length, { timeout: 30_000 })
    .toBe(1);
  const all = await spans();
  expect(new Set(all.map(({ traceId }) => traceId))).toEqual(new Set([trace]));
  expect(new Set(all.map(({ node }) => node))).toEqual(new Set(names));
  const byId = new Map(all.map((span) => [span.spanId, span]));
  expect(all.filter(({ parentSpanId }) => !byId.has(parentSpanId ?? ""))).toMatchObject([
    { name: "ingest", node: "node-a", parentSpanId: caller, attributes: { "starling.datapoints": 30 } },
  ]);
  const pathOf = (span: SpanLine): SpanLine[] => {
    const parent = byId.get(span.parentSpanId ?? "");
    return parent === undefined ? [span] : [...pathOf(parent), span];
  };
  const named = ["ingest", "process", "hook deriver.mirror", "process", "hook deriver.fifth", "process"];
  const paths = all.filter(total).map(pathOf);
  for (const path of paths) {
    expect(path.map(({ name }) => name)).toEqual(named);
    // A step begins after the one before it, up to what the clocks of two processes differ.
    for (const [index, { start }] of path.entries())
      expect(start).toBeGreaterThan((path[index - 1]?.start ?? 0) - 1_000);
  }
  expect(paths.some((path) => new Set(path.map(({ node }) => node)).size === 2)).toBe(true);
  const [ingest] = all.filter(({ name }) => name === "ingest");
  expect(ingest?.events?.map(({ name }) => name)).toEqual(["durable", "processed"]);
  const appends = all.filter(({ name }) => name === "append").map(({ attributes }) => attributes["starling.type"]);
  expect(appends.filter((type) => type === "mirror")).toHaveLength(8);
}, 120_000);

test("metrics show the other node, the way to it, and what travels there", async () => {
  const metrics = async () => {
    const response = await fetch(`http://${cluster.nodes[0]?.process?.httpAddress}/metrics`);
    const samples = readExposition(await response.text()).flatMap((metric) => metric.samples);
    return new Map(samples.map(({ name, labels, value }) => [`${name}${JSON.stringify(labels)}`, value]));
  };
  await expect
    .poll(async () => (await metrics()).get('starling_link_round_trip_seconds{"peer":"node-b"}'), { timeout: 30_000 })
    .toBeLessThan(30);
  // Half of 64, or one more or less: no shard moves for less.
  await expect
    .poll(async () => Math.abs(((await metrics()).get('starling_shards{"group":"entity"}') ?? 0) - 32), {
      timeout: 30_000,
    })
    .toBeLessThanOrEqual(1);
  const all = await metrics();
  expect(all.get('starling_links{"path":"direct"}')).toBe(1);
  expect(all.get('starling_nodes{"state":"serving"}')).toBe(2);
  expect(all.get("starling_coordinator_connected{}")).toBe(1);
  expect(all.get("starling_parts_forwarded_total{}")).toBeGreaterThan(0);
  expect(all.get("starling_parts_received_total{}")).toBeGreaterThan(0);
  expect(all.get("starling_spans_exported_total{}")).toBeGreaterThan(0);
  expect(all.get("starling_spans_failed_total{}")).toBe(0);
}, 60_000);

test("the last spans are written when a node leaves", async () => {
  const last = "1af7651916cd43dd8448eb211c80319c";
  await send(400, `00-${last}-${caller}-01`);
  await Promise.all(cluster.nodes.map((node) => node.stop()));
  const found = (await spans()).filter(({ traceId, name }) => traceId === last && name === "ingest");
  expect(found).toHaveLength(1);
}, 60_000);
