import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it, vi } from "vitest";
import type { HookCall } from "../../../actors/hooks/hook-call.ts";
import type { HookOutcome } from "../../../actors/hooks/hook-outcome.ts";
import { createFailPoint, failPoints, noFailPoint, withHookFailPoints } from "../../../actors/lane/fail-point.ts";
import type { Hook } from "../../../modules/hook.ts";
import { repository } from "../../support/repository.ts";

const hook = {} as Hook;
const call = {} as HookCall;
const answer: HookOutcome = { kind: "answer", tasks: [] };

describe("a fail-point", () => {
  it("ends the process at the named hit, not before, and not after", () => {
    const die = vi.fn();
    const onFailPoint = createFailPoint("before-flush:3", die);
    for (const name of ["before-flush", "before-append", "before-flush"] as const) onFailPoint(name);
    expect(die).not.toHaveBeenCalled();
    onFailPoint("before-flush");
    onFailPoint("before-flush");
    expect(die.mock.calls).toEqual([["before-flush", 3]]);
  });

  it("that does not exist or has no count is refused with the names that exist", () => {
    for (const text of ["before-lunch:1", "before-flush", "before-flush:0", "before-flush:-1", ":1"]) {
      expect(() => createFailPoint(text, () => {})).toThrow(/name:count, one of acquired, in-recovery/);
    }
  });

  it("is passed somewhere, and stands in the table", async () => {
    const files = ["lane/deliverer.ts", "lane/fail-point.ts", "lane/lane-cell.ts", "start-local-engine.ts"];
    const texts = await Promise.all(files.map((file) => readFile(join(repository, "actors", file), "utf8")));
    const source = texts.join("\n");
    expect(failPoints.filter((name) => !source.includes(` * | \`${name}\``))).toEqual([]);
    expect(failPoints.filter((name) => !new RegExp(`onFailPoint(\\?\\.)?\\("${name}"\\)`).test(source))).toEqual([]);
  });
});

describe("the fail-points of hooks", () => {
  it("cost nothing when none is armed", () => {
    const run = () => answer;
    expect(withHookFailPoints(run, noFailPoint)).toBe(run);
  });

  it("are passed while an asynchronous hook runs, and when a hook has answered", async () => {
    const passed: string[] = [];
    const atOnce = withHookFailPoints(
      () => answer,
      (name) => passed.push(name),
    );
    expect(atOnce(hook, call)).toBe(answer);
    expect(passed.splice(0)).toEqual(["hook-answered"]);
    let end = (_: HookOutcome): void => {};
    const later = withHookFailPoints(
      () => new Promise((resolve) => (end = resolve)),
      (name) => passed.push(name),
    );
    const outcome = later(hook, call);
    expect(passed).toEqual(["in-hook"]);
    end(answer);
    expect(await outcome).toBe(answer);
    expect(passed).toEqual(["in-hook", "hook-answered"]);
  });
});
