import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { expect, test } from "vitest";
import { createLineLimit, defaultLineLimits, type HeldLines } from "../../node/line-limit.ts";
import { createLog } from "../../node/log.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { repository } from "../support/repository.ts";

function createLimit(limits = {}) {
  const clock = createManualClock();
  const told: HeldLines[] = [];
  return { clock, told, limit: createLineLimit({ clock, tell: (held) => void told.push(held), limits }) };
}

const countOf = (times: number, run: () => boolean) => Array.from({ length: times }, run).filter(Boolean).length;

test("lines of one level and message are held back above the bound, and told of at the window's end", async () => {
  const { clock, told, limit } = createLimit();
  expect(countOf(50, () => limit.admits("warn", "link lost"))).toBe(20);
  expect(countOf(5, () => limit.admits("warn", "link opened"))).toBe(5);
  expect(countOf(5, () => limit.admits("error", "link lost"))).toBe(5);
  await clock.advance(defaultLineLimits.windowMs - 1);
  expect(told).toEqual([]);
  await clock.advance(1);
  expect(told).toEqual([{ level: "warn", message: "link lost", count: 30 }]);
  expect(limit.admits("warn", "link lost")).toBe(true);
  expect(clock.timers).toBe(0);
});

test("lines that are not too many set no timer, and each window begins anew", async () => {
  const { clock, told, limit } = createLimit();
  for (let round = 0; round < 5; round++) {
    expect(countOf(20, () => limit.admits("info", "flushed"))).toBe(20);
    expect(clock.timers).toBe(0);
    await clock.advance(defaultLineLimits.windowMs);
  }
  expect(told).toEqual([]);
});

test("of many messages the oldest is forgotten, and told of if something of it was held back", () => {
  const { told, limit } = createLimit({ messages: 3, lines: 1 });
  limit.admits("info", "a");
  limit.admits("info", "a");
  for (const message of ["b", "c", "d"]) limit.admits("info", message);
  expect(told).toEqual([{ level: "info", message: "a", count: 1 }]);
});

function write(options: Parameters<typeof createLog>[0], run: (log: ReturnType<typeof createLog>) => void): string[] {
  const lines: string[] = [];
  run(createLog({ ...options, destination: { write: (line: string) => void lines.push(line) } }));
  return lines;
}

test("the log holds back what its children repeat, and says so once, in the same words", async () => {
  const clock = createManualClock();
  const lines = write({ clock }, (log) => {
    for (let index = 0; index < 100; index++) log.child({ shard: index }).warn({ index }, "shard lost");
    log.info({}, "serving");
  });
  expect(lines).toHaveLength(21);
  await clock.advance(defaultLineLimits.windowMs);
  expect(lines).toHaveLength(22);
  expect(JSON.parse(lines[21] ?? "")).toMatchObject({
    level: 40,
    repeated: "shard lost",
    count: 80,
    msg: "repeated lines were held back",
  });
});

test("lines below the level are neither written nor counted", async () => {
  const clock = createManualClock();
  const lines = write({ clock, level: "info" }, (log) => {
    for (let index = 0; index < 100; index++) log.debug({}, "looked");
  });
  await clock.advance(defaultLineLimits.windowMs);
  expect(lines).toEqual([]);
});

test("on a terminal the same lines are for people", async () => {
  const [line] = write({}, (log) => log.info({ shard: 3 }, "shard acquired"));
  expect(JSON.parse(line ?? "")).toMatchObject({ level: 30, shard: 3, msg: "shard acquired" });
  const destination = new PassThrough({ encoding: "utf8" });
  createLog({ pretty: true, destination }).info({ shard: 3 }, "shard acquired");
  const [text] = await once(destination, "data");
  expect(text).toMatch(/^\[\d\d:\d\d:\d\d\.\d{3}\] INFO: shard acquired\n {4}shard: 3\n$/);
});

test("a process that ends with lines held back tells of them", () => {
  const code = `import { createLog } from ${JSON.stringify(join(repository, "dist/node/log.js"))};
    const log = createLog();
    for (let index = 0; index < 25; index++) log.error({}, "failed");`;
  const { stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", code], { encoding: "utf8" });
  expect(stderr.trim().split("\n")).toHaveLength(21);
  expect(stderr).toContain('"count":5,"msg":"repeated lines were held back"');
});
