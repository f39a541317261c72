import { expect, test } from "vitest";
import type { News, Part } from "../../../actors/lane/part.ts";
import { channelLifeMs } from "../../../actors/store/session-life.ts";
import { shardId } from "../../../proto/ids.ts";
import { createMemoryStore } from "../../support/memory-store.ts";
import { type SimulatedNode, startSimulatedNode } from "../../support/simulated-node.ts";
import { hooks, model, runHook } from "./protocol-script.ts";

const shard = shardId("entity", 0);
const hour = 3_600_000;

async function start(): Promise<SimulatedNode> {
  const store = createMemoryStore();
  return await startSimulatedNode({ store, model, hooks, runHook, shards: 1, name: "node", dies: () => false });
}

/** Offers an empty part, and says what came of it. */
async function offer(
  node: SimulatedNode,
  channel: string,
  number: number,
  predecessor: number | null,
): Promise<string> {
  const at = { position: 0, shard, channel, number, predecessor, hash: `h${number}` };
  const part: Part = { kind: "part", ...at, tasks: [], rejections: [], bytes: 0 };
  const heard: string[] = [];
  node.offer([part], (news: News) => {
    for (const event of news) heard.push(event.kind === "refused" ? event.error.code : event.kind);
  });
  await node.run();
  return heard[0] ?? "nothing";
}

async function pass(node: SimulatedNode, ms: number): Promise<void> {
  for (let left = ms; left > 0; left -= hour) {
    node.elapse(Math.min(hour, left));
    await node.run();
  }
}

const channels = (node: SimulatedNode): string[] => [...(node.lane.shards.get(shard)?.channels.keys() ?? [])];

test("channels of keys and of drawn sessions are forgotten when nothing new came for their life", async () => {
  const node = await start();
  const all = ["c:key:old", "c:key:used", "c:drawn:1", "c:name", "s:1"];
  for (const channel of all) expect(await offer(node, channel, 1, 0)).toBe("durable");
  await pass(node, channelLifeMs - hour);
  expect(channels(node)).toEqual(all);
  expect(await offer(node, "c:key:used", 2, null)).toBe("durable");
  await pass(node, 3 * hour);
  expect(channels(node)).toEqual(["c:key:used", "c:name", "s:1"]);
  expect(await offer(node, "c:key:used", 3, 2)).toBe("durable");
});

test("a sender whose channel is forgotten goes on by saying that it knows no predecessor", async () => {
  const node = await start();
  expect(await offer(node, "c:drawn:slow", 7, null)).toBe("durable");
  await pass(node, channelLifeMs + 2 * hour);
  expect(await offer(node, "c:drawn:slow", 8, 7)).toBe("GAP");
  expect(await offer(node, "c:drawn:slow", 8, null)).toBe("durable");
  expect(await offer(node, "c:drawn:slow", 9, 8)).toBe("durable");
});
