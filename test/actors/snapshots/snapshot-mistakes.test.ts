import { describe, expect, it } from "vitest";
import { createCallGuard } from "../../../actors/snapshots/call-guard.ts";
import type { Value } from "../../../modules/datapoint.ts";
import type { CorrelationHook } from "../../../modules/snapshot-hook.ts";
import { createManualClock } from "../../support/manual-clock.ts";
import { bodyOf, playTick } from "../../support/snapshot-play.ts";
import { type Door, play, reads, record, sets } from "./snapshot-script.ts";

describe("what hooks do wrong", () => {
  const lone = (values: Readonly<Record<string, Value>> = { x: 1 }) => ({ lone: [record("lone", "a", values)] });
  const id = "m/correlation/lone/hook";

  it("is told when they change what they did not declare, and the change is not taken", async () => {
    const scope = play((door) => {
      reads(door, "lone", (_, values) => void Object.assign(values, { x: 5, y: 6, zz: 7, eid: "b" }), [], [["x"]]);
      reads(
        door,
        "lone",
        sets("z", (values) => Number(values.y ?? 0)),
        [["x"]],
        [["z"]],
        "next",
      );
    });
    const tick = await playTick(scope, lone());
    expect(bodyOf(tick, "lone", "a")).toEqual({ eid: "a", x: 5, z: 0 });
    expect(tick.report.get(id)).toMatchObject({
      ...{ calls: 1, undeclared: 3, failures: 0 },
      problems: ["eid", "y", "zz"].map(
        (attr) => `lone a: changed '${attr}', which 'mayChange' does not name: left as it was`,
      ),
    });
  });

  it("is told when they do not yield where a node may have died of it: they are ended, and called no more", async () => {
    const stuck: string[] = [];
    const called: unknown[] = [];
    const scope = play((door) => {
      const spin: CorrelationHook = (_, values) => {
        called.push(values.eid);
        values.y = 9;
        while (values.x === 1);
      };
      reads(door, "lone", spin, [["x"]], [["y"]]);
      reads(
        door,
        "lone",
        sets("z", (values) => Number(values.y ?? 0)),
        [["y"]],
        [["z"]],
        "next",
      );
    });
    const guard = { ...createCallGuard(100), onStuck: ({ eid }: { readonly eid: string }) => void stuck.push(eid) };
    const records = { lone: ["a", "b", "c"].map((eid) => record("lone", eid, { x: eid === "b" ? 1 : 0 })) };
    const tick = await playTick({ ...scope, guard }, records);
    expect(["a", "b", "c"].map((eid) => bodyOf(tick, "lone", eid))).toMatchObject([{ y: 9, z: 9 }, { z: 0 }, { z: 0 }]);
    expect([called, stuck]).toEqual([["a", "b"], ["b"]]);
    expect(tick.report.get(id)).toMatchObject({
      ...{ calls: 3, failures: 2 },
      problems: [expect.stringContaining("lone b: "), expect.stringContaining("given up for this run")],
    });
  });

  it("is told when they throw or return nonsense: the call has changed nothing, the others go on", async () => {
    const answers: unknown[] = [5, [{ type: "nobody", eid: "x", delete: true }], new Error("no luck")];
    const scope = play((door) => {
      const wrong: CorrelationHook = (_, values) => {
        values.y = 9;
        const answer = answers[Number(values.x)];
        if (answer instanceof Error) throw answer;
        return answer as never;
      };
      reads(door, "lone", wrong, [["x"]], [["y"]]);
      reads(
        door,
        "lone",
        sets("z", () => 1),
        [["y"]],
        [["z"]],
        "next",
      );
    });
    const tick = await playTick(scope, { lone: [0, 1, 2, 3].map((x) => record("lone", String(x), { x })) });
    expect(tick.report.get(id)).toMatchObject({
      ...{ calls: 4, failures: 3 },
      problems: [
        expect.stringContaining("lone 0: hook m/correlation/lone/hook failed: returned a number"),
        expect.stringContaining("returned a wrong task, number 0: no entity type"),
        "lone 2: hook m/correlation/lone/hook failed: no luck",
      ],
    });
    expect(tick.bodies.lone).toEqual(
      Object.fromEntries([0, 1, 2, 3].map((x) => [x, { eid: String(x), x, ...(x === 3 && { y: 9 }), z: 1 }])),
    );
    expect(tick.tasks).toEqual([]);
  });

  it("is told when they set what the attribute's type refuses", async () => {
    const scope = play((door) => {
      const wrong: CorrelationHook = (_, values) =>
        void Object.assign(values, { x: "many", y: 3.5, z: "12", tags: "one", "tags#c": 2 });
      reads(door, "lone", wrong, [], [["x"], ["y"], ["z"], ["tags"]]);
    });
    const tick = await playTick(scope, lone());
    expect(bodyOf(tick, "lone", "a")).toEqual({ eid: "a", x: 1, z: 12 });
    expect(tick.report.get(id)).toMatchObject({
      refused: 3,
      problems: [/x/, /y/, /tags/].map((attr) => expect.stringMatching(attr)),
    });
  });

  it("ends after their time-out: the signal is aborted, and what they write later goes nowhere", async () => {
    const clock = createManualClock();
    let late = () => {};
    let aborted = false;
    const scope = play(
      (door) => {
        const hang: CorrelationHook = (_, values, { signal }) => {
          signal.addEventListener("abort", () => {
            aborted = true;
          });
          return new Promise(() => {
            late = () => {
              values.x = 99;
            };
          });
        };
        reads(door, "lone", hang, [], [["x"]]);
        reads(
          door,
          "lone",
          sets("y", (values) => {
            late();
            return Number(values.x);
          }),
          [["x"]],
          [["y"]],
          "next",
        );
      },
      { clock, timeoutMs: 50 },
    );
    const ticking = playTick(scope, lone());
    await clock.advance(50);
    const tick = await ticking;
    expect([aborted, bodyOf(tick, "lone", "a")]).toEqual([true, { eid: "a", x: 1, y: 1 }]);
    expect(tick.report.get(id)?.problems).toEqual([
      "lone a: hook m/correlation/lone/hook failed: there was no answer within 50 ms",
    ]);
  });

  it("is given up for the tick when they hang over and over, and not tried again when they fail over and over", async () => {
    const clock = createManualClock();
    const calls = { hang: 0, fail: 0 };
    const register = (door: Door) => {
      const hang: CorrelationHook = () => {
        calls.hang++;
        return new Promise(() => {});
      };
      reads(door, "lone", hang, [], [], "hang");
      const fail: CorrelationHook = () => {
        calls.fail++;
        throw new Error("a bug");
      };
      reads(door, "lone", fail, [], [], "fail");
    };
    const scope = play(register, { clock, timeoutMs: 50, retries: 1 });
    const ticking = playTick(scope, { lone: Array.from({ length: 200 }, (_, i) => record("lone", `e${i}`)) });
    await clock.advance(60_000);
    const { report, bodies } = await ticking;
    expect(Object.keys(bodies.lone ?? {})).toHaveLength(200);
    expect(report.get("m/correlation/lone/hang")).toMatchObject({ calls: 200, failures: 200 });
    expect(report.get("m/correlation/lone/hang")?.problems.at(-1)).toContain("there was no answer within 50 ms");
    expect(calls.hang).toBeLessThan(40);
    expect(report.get("m/correlation/lone/fail")).toMatchObject({ calls: 200, failures: 200 });
    expect(calls.fail).toBeLessThan(240);
  });

  it("is tried again with values of its own", async () => {
    const clock = createManualClock();
    let attempts = 0;
    const scope = play(
      (door) => {
        const flaky: CorrelationHook = (_, values) => {
          values.x = Number(values.x) + 1;
          if (++attempts < 3) throw new Error("not yet");
        };
        reads(door, "lone", flaky as never, [], [["x"]]);
      },
      { clock, retries: 2 },
    );
    const ticking = playTick(scope, lone());
    await clock.advance(10_000);
    expect(bodyOf(await ticking, "lone", "a")).toEqual({ eid: "a", x: 2 });
  });

  it("ends with the run: an aborted one rejects, and the hooks' signals are aborted", async () => {
    const aborts = new AbortController();
    let aborted = false;
    const scope = play(
      (door) => {
        const hang: CorrelationHook = (_, __, { signal }) => {
          signal.addEventListener("abort", () => {
            aborted = true;
          });
          return new Promise(() => {});
        };
        reads(door, "lone", hang, [], []);
      },
      { signal: aborts.signal },
    );
    const ticking = playTick(scope, lone());
    await Promise.resolve();
    setImmediate(() => aborts.abort(new Error("the shard is lost")));
    await expect(ticking).rejects.toThrow("the shard is lost");
    expect(aborted).toBe(true);
  });
});
