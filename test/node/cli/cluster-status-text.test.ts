import { describe, expect, it } from "vitest";
import { formatBytes, isWell, linesOfStatus } from "../../../node/cli/cluster-status-text.ts";
import { createOutput } from "../../../node/cli/output.ts";
import type { ClusterNodeStatus, ClusterStatus } from "../../../proto/cluster-status.ts";
import { createSink } from "./terminal.ts";

const node: ClusterNodeStatus = {
  ...{ name: "ada", node: "id-a", address: "127.0.0.1:4700", version: "1", modelHash: "m", state: "serving" },
  ...{ problem: "", uptimeS: 75, shards: { entity: 3, system: 1 }, weights: { entity: 1, system: 1 }, lag: 1234 },
  ...{ queueBytes: 2048, queueMaxBytes: 4096, residentEntities: 5, handOffs: 0, handOffsDone: 2, obligations: 1 },
  ...{ undelivered: 0, deadLetters: 0 },
};
const away = { state: "away", silentMs: 12_000 } as const;
const answers = { state: "answers", silentMs: 0 } as const;
const status: ClusterStatus = {
  ...{ clusterId: "c1", asked: "ada", nodes: [node], unowned: [], epochMin: 1, epochMax: 4, versions: { 1: 1 } },
  ...{ models: { m: 1 }, etcd: answers, database: answers, deadLetters: 0, problems: [] },
  shards: [
    { shard: 0, group: "entity", owner: "ada", epoch: 4, state: "owned", pinnedTo: "ada", lastSeq: 9, watermark: 1 },
    { shard: 4096, group: "system", owner: "", epoch: 1, state: "unowned", pinnedTo: "", lastSeq: 0, watermark: 0 },
  ].map((shard, at) => ({ ...shard, lag: at === 0 ? 2 : 0, obligations: 0, undelivered: 0 })),
};
const plain = (_: unknown, text: string): string => text;

describe("a cluster's status for people", () => {
  it("has a line for each node, one for what the cluster needs, and says that all is well", () => {
    expect(linesOfStatus(status, plain, false)).toEqual([
      "cluster c1  asked ada",
      "1 node, version 1, 2 shards, epochs 1 to 4",
      "etcd answers, PostgreSQL answers",
      "",
      "node  state    address         entity  system  weight    lag  queued   moving  moved  obligations  letters  up",
      "ada   serving  127.0.0.1:4700       3       1       1  1,234  2.0 KiB       0      2            1        0  1 min 15 s",
      "",
      "all is well",
    ]);
  });

  it("with shards has a line for each of them", () => {
    expect(linesOfStatus(status, plain, true).slice(-3)).toEqual([
      "shard  group   owner  state    pinned to  epoch  last seq  lag  obligations",
      "    0  entity  ada    owned    ada            4         9    2            0",
      " 4096  system  -      unowned  -              1         0    0            0",
    ]);
  });

  it("shows what is wrong: who is silent or gone and why, what is away and for how long", () => {
    const silent = { ...node, name: "bob", state: "silent", problem: "it did not answer within 2000 ms" };
    const gone = { ...node, name: "cyd", address: "", state: "gone", problem: "it left" };
    const wrong = { ...status, nodes: [node, silent, gone], database: away, problems: ["it is bad"] };
    const lines = linesOfStatus(wrong, plain, false);
    expect(lines[2]).toBe("etcd answers, PostgreSQL away for 12 s");
    expect(lines[6]).toMatch(/^bob +silent +127\.0\.0\.1:4700 +3 +1 +1 +\? +\? +\? +\? +\? +0 +\?$/);
    expect(lines[7]).toMatch(/^cyd +gone( +-)+$/);
    expect(lines[9]).toBe("cyd is gone: it left");
    expect(lines.at(-1)).toBe("! it is bad");
  });
});

it.each<[string, Partial<ClusterStatus>, boolean]>([
  ["all serve", {}, true],
  ["a node has left", { nodes: [node, { ...node, state: "gone", problem: "it left" }] }, true],
  ["a node is drained", { nodes: [{ ...node, state: "drained" }] }, true],
  ["dead letters wait", { deadLetters: 3, problems: ["3 dead letters"] }, true],
  ["a node does not answer", { nodes: [{ ...node, state: "silent", problem: "late" }] }, false],
  ["a node does not serve", { nodes: [{ ...node, problem: "STORE: no" }] }, false],
  ["a shard is nobody's", { unowned: [3] }, false],
  ["etcd is away", { etcd: away }, false],
  ["PostgreSQL is away", { database: away }, false],
])("whether a cluster is well when %s", (_, change, well) => {
  expect(isWell({ ...status, ...change })).toBe(well);
});

it("states are coloured on a terminal, and columns stay where they are", () => {
  const output = createOutput(createSink(true).stream, createSink(false).stream, {});
  const lines = linesOfStatus(status, output.paint, false);
  expect(lines[5]).toContain("\u001b[32m serving \u001b[39m");
  // biome-ignore lint/suspicious/noControlCharactersInRegex: colours are what is taken away
  expect(lines.map((line) => line.replace(/\u001b\[\d+m/g, ""))).toEqual(linesOfStatus(status, plain, false));
});

it.each([
  [0, "0 B"],
  [1023, "1023 B"],
  [3500, "3.4 KiB"],
  [12 * 1024 * 1024, "12 MiB"],
  [3 * 1024 ** 3, "3.0 GiB"],
])("%d bytes are %s", (bytes, text) => {
  expect(formatBytes(bytes)).toBe(text);
});
