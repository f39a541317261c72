import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { expect, test } from "vitest";
import { readQueues, watchQueues } from "./queue-watch.ts";

function pageOf(used: Readonly<Record<string, number>>, bound: number): string {
  const gauge = (name: string, values: Readonly<Record<string, number>>): string[] => [
    ...[`# HELP ${name} bytes`, `# TYPE ${name} gauge`],
    ...Object.entries(values).map(([queue, value]) => `${name}{queue="${queue}"} ${value}`),
  ];
  const bounds = Object.fromEntries(Object.keys(used).map((queue) => [queue, bound]));
  return `${[...gauge("starling_queue_bytes", used), ...gauge("starling_queue_bound_bytes", bounds)].join("\n")}\n`;
}

/** A server that says the next of these pages each time, and then the last one again and again. */
async function servePages(...pages: string[]) {
  let asked = 0;
  const server = createServer((_, response) => response.end(pages[Math.min(asked++, pages.length - 1)]));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  return {
    httpAddress: `127.0.0.1:${port}`,
    [Symbol.asyncDispose]: async () => {
      server.close();
      server.closeAllConnections();
      await once(server, "close");
    },
  };
}

test("a queue that grows beyond its bound is told of, by node and queue, once; others are not", async () => {
  await using full = await servePages(pageOf({ node: 150, shard: 20 }, 100), pageOf({ node: 151, shard: 20 }, 100));
  await using calm = await servePages(pageOf({ node: 40, shard: 10 }, 100));
  const watch = watchQueues([
    { name: "node-a", process: full },
    { name: "node-b", process: calm },
    { name: "node-c", process: null },
    { name: "node-d", process: { httpAddress: "127.0.0.1:1" } },
  ]);
  await expect.poll(() => watch.readings, { timeout: 5_000 }).toBeGreaterThanOrEqual(4);
  await watch.close();
  expect(watch.problems).toEqual(['the queue "node" of node-a has 151 bytes, its bound is 100']);
  expect(watch.fullest).toBe(1.51);
});

test("a page without queues, or with one that has no bound, is no reading", () => {
  expect(() => readQueues("# HELP a b\n# TYPE a gauge\na 1\n")).toThrow("no queue is told of");
  const [head = ""] = pageOf({ node: 1 }, 2).split("# HELP starling_queue_bound_bytes");
  expect(() => readQueues(head)).toThrow('the queue "node" has no bound');
  expect(readQueues(pageOf({ node: 1 }, 2))).toEqual([{ queue: "node", used: 1, bound: 2 }]);
});
