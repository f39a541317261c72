import { describe, expect, it } from "vitest";
import type { HookCall } from "../../../actors/hooks/hook-call.ts";
import type { HookOutcome } from "../../../actors/hooks/hook-outcome.ts";
import { inspectShard } from "../../../actors/lane/inspect-shard.ts";
import type { LaneLimits } from "../../../actors/lane/lane.ts";
import type { Hook, HookTable } from "../../../modules/hook.ts";
import { type ShardId, shardId } from "../../../proto/ids.ts";
import { shardOf } from "../../../proto/shard-of.ts";
import { createMemoryStore } from "../../support/memory-store.ts";
import { type SimulatedNode, startSimulatedNode } from "../../support/simulated-node.ts";
import { hook, model, shards, task } from "./protocol-script.ts";

/* What a shard says that it waits for, while a hook of another shard's entity hangs. */

const source = eidIn(shardId("entity", 0));
const target = eidIn(shardId("entity", 1));
const slow = hook("on_new_attr", "src", "a", "next");
const hooks: HookTable = {
  onTaskStart: [],
  allowEntityCreation: new Map(),
  onEntityCreation: new Map(),
  onNewAttr: new Map([["src", new Map([["a", [slow]]])]]),
};

function eidIn(shard: ShardId): string {
  for (let i = 0; ; i++) if (shardOf("entity", "src", `e${i}`, shards) === shard) return `e${i}`;
}

/** Of the source one task comes for the target, whose hook never ends. */
function runHook(_: Hook, call: HookCall): HookOutcome | Promise<HookOutcome> {
  if (call.eid === target) return new Promise(() => {});
  return { kind: "answer", tasks: [task("src", target, "a", 1)] };
}

async function startNode(
  name: string,
  limits: Partial<LaneLimits> = {},
  store = createMemoryStore(),
): Promise<SimulatedNode> {
  const node = await startSimulatedNode({ store, model, hooks, runHook, shards, limits, name, dies: () => false });
  await node.run();
  return node;
}

async function send(node: SimulatedNode, eid: string, number: number): Promise<void> {
  const place = { position: 0, shard: shardOf("entity", "src", eid, shards), channel: "c:test", predecessor: null };
  const tasks = [{ ...task("src", eid, "a", number), cause: null }];
  node.offer([{ kind: "part", ...place, number, hash: `h${number}`, tasks, rejections: [], bytes: 10 }], () => {});
  await node.run();
}

function look({ lane }: SimulatedNode, eid: string, arriving: readonly ShardId[] = []) {
  const clock = { now: () => lane.world.monotonic(), after: () => () => {}, soon: () => {} };
  const shard = shardOf("entity", "src", eid, shards);
  const found = inspectShard(lane, shard, { entity: { type: "src", eid }, arriving, clock });
  if (found === null) throw new Error(`shard ${shard} is not here`);
  return found;
}

const kindsOf = (found: ReturnType<typeof look>): string[] => found.waits.map(({ kind }) => kind);

describe("a shard", () => {
  it("in which nothing happens waits for nothing, nor does an entity that is not in memory", async () => {
    const { waits, report, entity } = look(await startNode("node"), source);
    expect({ waits, lastSeq: report?.lastSeq }).toEqual({ waits: [], lastSeq: 0 });
    expect(entity).toMatchObject({ resident: false, mailbox: 0, waits: [] });
  });

  it("names the hook that runs, for whom, and how long; and to which shard its derived tasks are on their way", async () => {
    const node = await startNode("node", { obligationAfterMs: 1e9 });
    await send(node, source, 1);
    node.elapse(1500);
    await node.run();
    const [outbox] = look(node, source).waits;
    expect(outbox).toMatchObject({ kind: "outbox", what: "1 derived tasks for shard 1 are not done there" });
    expect(outbox?.forMs).toBeGreaterThanOrEqual(1500);
    const { waits, entity } = look(node, target);
    expect(waits[0]).toMatchObject({ kind: "hook", hook: slow.id, type: "src", eid: target, seq: 1 });
    expect(waits[0]?.forMs).toBeGreaterThanOrEqual(1500);
    expect(entity).toMatchObject({ resident: true, exists: true, mailbox: 1, waits: [waits[0]] });
  });

  it("shows an obligation in place of the hook, with what waits behind it", async () => {
    const node = await startNode("node");
    for (let number = 1; number <= 3; number++) await send(node, target, number);
    for (let round = 0; round < 3; round++) {
      node.elapse(6000);
      await node.run();
    }
    const { waits, report, entity } = look(node, target);
    const what = `an obligation: the hook ${slow.id} takes long, 2 tasks wait behind it`;
    expect(waits).toMatchObject([{ kind: "obligation", what, hook: slow.id, eid: target }]);
    expect(report?.obligations).toBe(1);
    expect(entity?.mailbox).toBe(3);
  });

  it("says which bound keeps its senders waiting", async () => {
    const node = await startNode("node", { lagMaxEntries: 2, obligationAfterMs: 1e9 });
    for (let number = 1; number <= 2; number++) await send(node, target, number);
    expect(kindsOf(look(node, target))).toContain("bound");
  });

  it("whose owner died is replayed, window by window", async () => {
    const store = createMemoryStore();
    await send(await startNode("dead", { obligationAfterMs: 1e9 }, store), target, 1);
    const kinds = kindsOf(look(await startNode("next", { obligationAfterMs: 1e9 }, store), target));
    expect(kinds).toContain("replay");
  });

  it("whose log is being read is on its way", async () => {
    const node = await startNode("node");
    const away = shardOf("entity", "src", source, shards);
    node.lane.shards.delete(away);
    const { report, waits } = look(node, source, [away]);
    expect([report, waits[0]?.kind]).toEqual([null, "arrival"]);
    expect(() => look(node, source)).toThrow(/is not here/);
  });
});
