import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createLog } from "../../node/log.ts";
import { type Node, startNode } from "../../node/node.ts";
import { type Client, connect } from "../../proto/client.ts";
import type { TestDatabases } from "../support/databases.ts";
import { testDatabases } from "../support/postgres.ts";
import { repository } from "../support/repository.ts";

/** Hooks of a real node that run in order, fail, hang, and derive without end. */
const soon = { timeout: 20_000 };
const dataDir = mkdtempSync(join(tmpdir(), "starling-hooks-"));
const lines: { readonly msg: string; readonly [field: string]: unknown }[] = [];
let databases: TestDatabases;
let node: Node;
let client: Client;

beforeAll(async () => {
  databases = await testDatabases();
  node = await startNode({
    configDir: join(repository, "test/support/hooks-config"),
    env: {},
    flags: { dataDir, ...databases.settings, listen: "127.0.0.1:0", httpListen: "none", chainMaxDepth: "6" },
    log: createLog({ destination: { write: (line: string) => void lines.push(JSON.parse(line)) } }),
  });
  client = await connect({ address: node.address, level: "processed" });
});

afterAll(async () => {
  await client?.close();
  await node?.close();
  await databases?.close();
  rmSync(dataDir, { recursive: true, force: true });
});

const guest = (eid: string, attr: string, v: unknown, t1?: number) => ({
  ...{ type: "guest", eid, attr, v },
  ...(t1 !== undefined && { t1 }),
});
const valuesOf = async (type: string, eid: string | number) =>
  (await client.entities.get({ type, eid: String(eid) })).attributes;
const lettersOf = async (eid: string) =>
  (await client.admin.deadLetters({ status: "open" })).letters.filter((letter) => letter.eid === eid);

/** Runs of hooks for an entity's own datapoints, as they logged them. */
function ranFor(eid: string): string[] {
  return lines
    .filter((line) => line.msg === `hook ran for ${eid}`)
    .map(({ point, place, datapoint = "", seen }) => `${point} ${place} ${datapoint} ${JSON.stringify(seen)}`);
}

describe.concurrent("on a real node", () => {
  test("hooks run point by point in the order of registration, and see the record as it is there", async ({
    expect,
  }) => {
    await client.send([guest("ada", "name", "Ada"), guest("ada", "visit", 7, 1000), guest("ada", "visit", 8, 2000)]);
    await expect.poll(async () => (await valuesOf("guest", "ada")).gift?.v, soon).toBe("flowers");
    await client.send([guest("ada", "name", "Ada L.")]);
    const born = '{"name":"Ada","visit":8}';
    const grown = '{"name":"Ada","visit":8,"gift":"flowers"}';
    expect(ranFor("ada")).toEqual([
      "on_task_start first  null",
      "on_task_start second  null",
      "allow_entity_creation first  null",
      "allow_entity_creation second  null",
      "on_entity_creation first  null",
      "on_entity_creation second  null",
      `on_new_attr first name Ada ${born}`,
      `on_new_attr second name Ada ${born}`,
      `on_new_attr first visit 7 ${born}`,
      `on_new_attr second visit 7 ${born}`,
      `on_new_attr first visit 8 ${born}`,
      `on_new_attr second visit 8 ${born}`,
      // The task that its creation derived.
      `on_task_start first  ${born}`,
      `on_task_start second  ${born}`,
      `on_task_start first  ${grown}`,
      `on_task_start second  ${grown}`,
      `on_new_attr first name Ada L. ${grown.replace("Ada", "Ada L.")}`,
      `on_new_attr second name Ada L. ${grown.replace("Ada", "Ada L.")}`,
    ]);
  });

  test("an allow hook that throws counts as allowed, and leaves a dead letter with its error", async ({ expect }) => {
    await client.send([guest("stranger", "name", "N. N.")]);
    expect((await valuesOf("guest", "stranger")).name?.v).toBe("N. N.");
    expect(await lettersOf("stranger")).toMatchObject([
      {
        kind: "hook",
        type: "guest",
        hook: "hooks/allow_entity_creation/guest/first",
        code: "HOOK_FAILED",
        error: expect.stringContaining("the list of guests is lost"),
      },
    ]);
    // The next hook of the point was asked, and the creation went on.
    expect(
      ranFor("stranger")
        .slice(2, 6)
        .map((line) => line.split(" ").slice(0, 2).join(" ")),
    ).toEqual([
      "allow_entity_creation first",
      "allow_entity_creation second",
      "on_entity_creation first",
      "on_entity_creation second",
    ]);
  });

  test("a hook that hangs ends as a dead letter with its error, while other entities go on", async ({ expect }) => {
    let hung = false;
    const hanging = client.send([guest("mute", "mood", "absent"), guest("mute", "name", "M.")]).then(() => {
      hung = true;
    });
    const others = Array.from({ length: 20 }, (_, index) => guest(`loud${index}`, "mood", "merry"));
    await using other = await connect({ address: node.address, level: "processed" });
    await other.send(others);
    expect(hung).toBe(false);
    await hanging;
    expect(await lettersOf("mute")).toMatchObject([
      { kind: "hook", type: "guest", code: "HOOK_FAILED", error: expect.stringContaining("within 2000 ms") },
    ]);
    const { mood, name } = await valuesOf("guest", "mute");
    expect([mood?.v, name?.v]).toEqual(["absent", "M."]);
    // The hooks of its next datapoint ran.
    expect(ranFor("mute").filter((line) => line.includes("name M."))).toHaveLength(2);
  });

  test("a chain of hooks that feeds itself ends at its bound as a dead letter; all before it is there", async ({
    expect,
  }) => {
    await client.send([{ type: "link", eid: 0, attr: "depth", v: 0 }]);
    await expect
      .poll(() => lettersOf("7"), soon)
      .toMatchObject([
        {
          kind: "unapplied",
          type: "link",
          code: "CHAIN_TOO_DEEP",
          error: "hooks/on_new_attr/link.depth/further derives tasks at depth 7",
        },
      ]);
    for (let depth = 0; depth <= 6; depth++) expect((await valuesOf("link", depth)).depth?.v).toBe(depth);
    await expect(valuesOf("link", 7)).rejects.toMatchObject({ code: "NOT_FOUND" });
    expect(
      (await client.admin.deadLetters({ status: "open" })).letters.filter(({ type }) => type === "link"),
    ).toHaveLength(1);
  });
});

test("what concerns only MongoDB, RabbitMQ or Redis is accepted, and said once", () => {
  const said = (sentence: string) => lines.filter(({ msg }) => msg.includes(sentence)).map(({ msg }) => msg);
  expect(said("MongoDB")).toEqual(["database.yml: MongoDB is not used"]);
  expect(said("RabbitMQ")).toEqual(["processing_core.yml: msg_broker: RabbitMQ is not used"]);
  expect(said("Redis")).toEqual(["event_logging.yml: redis: Redis is not used"]);
  expect(said("worker_processes")).toHaveLength(1);
});
