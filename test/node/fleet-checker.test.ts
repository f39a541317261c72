import { describe, expect, it } from "vitest";
import { StarlingError } from "../../proto/starling-error.ts";
import { checkFleetEnd, type FleetFacts } from "../support/fleet/end-checker.ts";
import { type FleetSent, lines, type Ride, type SentTask, stops } from "../support/fleet/fleet-sent.ts";
import { createRunBook } from "../support/fleet/run-book.ts";
import { checkRun, checkSequence, type ToldRun, type ToldSnapshot } from "../support/fleet/run-checker.ts";

/* A run without faults is good, and each fault that is planted in one is seen. */

const rides: readonly Ride[] = [
  { line: "line-1", speed: 10, stop: "stop-1" },
  { line: "line-2", speed: 30, stop: "stop-2" },
  { line: "line-11", speed: 20, stop: "stop-2" },
];

describe("the checker of a run", () => {
  it("finds nothing in a run without faults", () => {
    expect(checkRun(perfectRun(), perfectSent())).toEqual([]);
  });

  it("sees an entity that is missing, doubled, or nobody's", () => {
    for (const key of [
      "cause cause-1",
      "lone lone-1",
      "line line-2",
      "stop stop-3",
      "guest guest-1",
      "badge badge-1",
    ]) {
      const rest = perfectRun().snapshots.filter((one) => keyOf(one) !== key);
      expect(checkRun(told(rest), perfectSent()).join("; "), key).toContain("missing");
    }
    const [first] = perfectRun().snapshots;
    if (first === undefined) throw new Error("the run is empty");
    expect(checkRun(told([...perfectRun().snapshots, first]), perfectSent())[0]).toBe("run 3: 1 are there twice");
    const strange = { type: "guest", eid: "guest-99", values: {} };
    expect(checkRun(told([...perfectRun().snapshots, strange]), perfectSent())).toEqual([
      "run 3: guest guest-99 was never sent",
    ]);
  });

  it("sees half a run: fewer than it says it has computed", () => {
    const run = { ...perfectRun(), computed: perfectRun().snapshots.length + 1 };
    expect(checkRun(run, perfectSent())).toEqual([expect.stringContaining("were told of a full run that computed")]);
  });

  it("sees what was durable before a run and is not in it, and what was sent after it and is", () => {
    expect(checkRun(changed("cause cause-1", { n: 1 }), perfectSent())[0]).toBe(
      "run 3: cause cause-1 is 1, and has to be from 2 to 3",
    );
    expect(checkRun(changed("cause cause-1", { n: 4 }), perfectSent())[0]).toContain("has to be from 2 to 3");
  });

  it("sees an effect without its cause, at each place of the chain", () => {
    expect(checkRun(changed("effect effect-1", { n: 4 }), perfectSent())).toEqual([
      "run 3: effect-1 is 4, its cause 3",
    ]);
    expect(checkRun(changed("after after-1", { n: 3 }), perfectSent())).toEqual(["run 3: after-1 is 3, its cause 2"]);
  });

  it("sees a task that stands there by half, and a hook that saw other values", () => {
    expect(checkRun(changed("lone lone-1", { points: 1 }), perfectSent())).toEqual([
      "run 3: lone-1 has 1 points in its 2 tasks",
    ]);
    expect(checkRun(changed("lone lone-1", { doubled: 3 }), perfectSent())).toEqual(["run 3: lone-1 is 2, doubled 3"]);
    expect(checkRun(changed("bus bus-2", { behind: 1 }), perfectSent())).toEqual([
      "run 3: bus-2 is behind by 1, not 0",
    ]);
  });

  it("sees a link of another task, one that its other end does not know, and one that a line has lost", () => {
    const moved = checkRun(changed("bus bus-1", { line: { eid: "line-2" } }), perfectSent());
    expect(moved[0]).toBe("run 3: bus-1 1 is on line-2 at 10, not line-1 at 10");
    const unknown = checkRun(changed("line line-1", { buses: [] }), perfectSent());
    expect(unknown).toEqual(["run 3: line-1 mirrors , and has bus-1"]);
    const none = checkRun(changed("bus bus-1", { line: undefined }), perfectSent());
    expect(none[0]).toBe("run 3: bus-1 1 is on null at 10, not line-1 at 10");
    expect(checkRun(changed("line line-1", { size: 2, fastest: 99 }), perfectSent())).toEqual([
      "run 3: bus-1 is behind by 0, not 89",
      "run 3: line-1 counts 2 buses of 1",
      "run 3: the fastest of line-1 is 99, not 10",
    ]);
  });

  it("sees a line after its deletion", () => {
    const snapshots = [...perfectRun().snapshots, line("line-11", [])];
    expect(checkRun(told(snapshots), perfectSent())[0]).toBe("run 3: line line-11 was deleted before it began");
  });

  it("sees a number that steps back from run to run, and an entity that is gone", () => {
    const later = { ...perfectRun(), tick: 4 };
    expect(checkSequence([perfectRun(), later])).toEqual([]);
    const back = { ...changed("effect effect-1", { n: 1 }), tick: 4 };
    expect(checkSequence([perfectRun(), back])).toEqual(["run 4: effect effect-1 steps back to 1 from 2 of run 3"]);
    const gone = { ...told(perfectRun().snapshots.filter(({ type }) => type !== "after")), tick: 4 };
    expect(checkSequence([perfectRun(), gone])).toEqual(["run 4: after after-1 of run 3 is missing"]);
  });
});

describe("the book of readers", () => {
  it("sees a run that tells one reader this and another one that", () => {
    const book = createRunBook();
    const snapshots = perfectRun().snapshots.map((one) => ({ ...one, tick: 3 }));
    book.note(3, snapshots);
    book.note(3, [...snapshots].reverse());
    expect(book.problems).toEqual([]);
    book.note(3, snapshots.slice(1));
    book.noteCount(3, { count: 4, told: 5 });
    book.note(4, snapshots);
    expect(book.problems).toEqual([
      "run 3 was told in two ways",
      "run 3 counts 4 lones, and tells 5",
      "snapshots of other runs were told with run 4",
    ]);
    expect(book.told).toBe(4);
  });

  it("counts what is refused for now, and reports every other answer", async () => {
    const book = createRunBook();
    await book.guard(() => Promise.reject(new StarlingError("UNAVAILABLE", "it stops")));
    await book.guard(() => Promise.reject(new StarlingError("INTERNAL", "a bug")));
    expect([book.refused, book.problems]).toEqual([2, ["reading snapshots: INTERNAL: a bug"]]);
  });
});

describe("the checker of what a fleet leaves behind", () => {
  it("finds nothing after a run without faults", () => {
    expect(checkFleetEnd(perfectEnd(), perfectSent())).toEqual([]);
  });

  it("sees a task of a hook that is lost, doubled, or of nobody: in the log and in histories", () => {
    const key = "3-lone-lone-1-fleet/correlation/lone/doubled";
    for (const place of ["told", "kept"] as const) {
      const name = place === "told" ? "log" : "history";
      const withSeen = (seen: readonly string[]): FleetFacts => {
        return { ...perfectEnd(), [place]: new Map([...perfectEnd()[place], ["lone seen", seen]]) };
      };
      expect(checkFleetEnd(withSeen([]), perfectSent())).toEqual([`${name}: lone seen lost: 3 lone-1`]);
      expect(checkFleetEnd(withSeen([key, key]), perfectSent())).toEqual([`${name}: lone seen twice: 3 lone-1`]);
      const nobody = "3-lone-lone-2-fleet/correlation/lone/doubled";
      expect(checkFleetEnd(withSeen([key, nobody]), perfectSent())).toEqual([
        `${name}: lone seen of nobody in runs 3 to 3: 3 lone-2`,
      ]);
      // Of a run that failed a task may have come through, but once.
      const failed = "2-lone-lone-1-fleet/correlation/lone/doubled";
      expect(checkFleetEnd(withSeen([key, failed]), perfectSent())).toEqual([]);
      expect(checkFleetEnd(withSeen([key, failed, failed]), perfectSent())).toHaveLength(1);
    }
  });

  it("sees a hook of a run that answered on two nodes, or on none", () => {
    const withBegan = (began: readonly string[]): FleetFacts => {
      return { ...perfectEnd(), told: new Map([...perfectEnd().told, ["round began", began]]) };
    };
    expect(checkFleetEnd(withBegan(["1000", "1000"]), perfectSent())).toEqual(["log: round began twice: 1000"]);
    expect(checkFleetEnd(withBegan([]), perfectSent())).toEqual(["log: round began lost: 1000"]);
  });

  it("sees links that one end does not know, and links to what is gone", () => {
    const withReferrers = (key: string, eids: string[]): FleetFacts => {
      return { ...perfectEnd(), referrers: new Map([...perfectEnd().referrers, [key, eids]]) };
    };
    expect(checkFleetEnd(withReferrers("line-1", []), perfectSent())).toEqual(["line-1 is linked by , not by bus-1"]);
    expect(checkFleetEnd(withReferrers("stop-2 1", ["bus-2"]), perfectSent())).toHaveLength(1);
    expect(checkFleetEnd(withReferrers("line-11", ["bus-3"]), perfectSent())).toHaveLength(1);
    const withReference = (target: string): FleetFacts => {
      const references = [...perfectEnd().references, { eid: "bus-2", attr: "guest", target }];
      return { ...perfectEnd(), references };
    };
    expect(checkFleetEnd(withReference("guest-101"), perfectSent())).toEqual([
      "bus-2 links to guest-101, whose time is over",
    ]);
    const deleted = {
      ...perfectEnd(),
      references: [...perfectEnd().references, { eid: "bus-3", attr: "line", target: "line-11" }],
    };
    expect(checkFleetEnd(deleted, perfectSent())[0]).toBe("bus-3 links to line-11, which was deleted");
    expect(checkFleetEnd({ ...perfectEnd(), references: [] }, perfectSent())).toHaveLength(2);
  });

  it("sees guests that stay beyond their time, and guests that are gone before it; and badges", () => {
    const late = { ...perfectEnd(), mortals: [...perfectEnd().mortals, "guest-101", "badge-101"] };
    expect(checkFleetEnd(late, perfectSent())).toEqual(["there after their time: guest-101, badge-101"]);
    const early = { ...perfectEnd(), mortals: [] };
    expect(checkFleetEnd(early, perfectSent())).toEqual(["gone before their time: guest-1, badge-1"]);
  });

  it("sees a last run that lacks what was sent last, and one that holds what is gone", () => {
    const behind = { ...perfectEnd(), runs: [perfectRun()] };
    expect(checkFleetEnd(behind, perfectSent())).toEqual([
      "at the end effect effect-1 is 2, not 3",
      "at the end after after-1 is 2, not 3",
    ]);
    const gone = told([...lastRun().snapshots, line("line-11", []), { type: "guest", eid: "guest-101", values: {} }]);
    expect(checkFleetEnd({ ...perfectEnd(), runs: [gone] }, perfectSent())).toEqual([
      "at the end guest guest-101 is there",
      "at the end line line-11 is there",
    ]);
    expect(checkFleetEnd({ ...perfectEnd(), runs: [] }, perfectSent())).toContain("no run has finished");
  });
});

/** Three tasks of a cause, the last of which nobody had acknowledged when the run began; a line that was deleted before. */
function perfectSent(): FleetSent {
  const task = (ackedAt: number, ride: Ride | null = null): SentTask => ({ sentAt: ackedAt - 1, ackedAt, ride });
  return {
    openedAt: 400,
    tasks: new Map([
      ["cause cause-1", [task(300), task(500), task(1_500)]],
      ["lone lone-1", [task(300), task(500)]],
      ["guest guest-1", [task(300)]],
      ["badge badge-1", [task(300)]],
      ["badge badge-101", [task(300)]],
      ...rides.map((ride, index): [string, SentTask[]] => [`bus bus-${index + 1}`, [task(300, ride)]]),
    ]),
    passing: new Set(["guest-101"]),
    dropped: new Set(["badge-101"]),
    deletions: new Map([["line-11", { askedAt: 600, doneAt: 700 }]]),
  };
}

function perfectRun(): ToldRun {
  const bus = (number: number, line: string | undefined, behind: number): ToldSnapshot => {
    const speed = rides[number - 1]?.speed;
    return snapshot("bus", number, { n: 1, speed, behind, ...(line !== undefined && { line: { eid: line } }) });
  };
  return told([
    snapshot("cause", 1, { n: 3 }),
    snapshot("effect", 1, { n: 2 }),
    snapshot("after", 1, { n: 2 }),
    snapshot("lone", 1, { n: 2, points: 2, doubled: 4 }),
    snapshot("guest", 1, { n: 1 }),
    snapshot("badge", 1, { n: 1 }),
    ...[bus(1, "line-1", 0), bus(2, "line-2", 0), bus(3, undefined, -20)],
    ...[...lines.lasting, ...lines.doomed].flatMap((eid) => {
      const ride = rides.findIndex((one) => one.line === eid);
      return eid === "line-11" ? [] : [line(eid, ride < 0 ? [] : [ride + 1])];
    }),
    ...stops.map((eid) => ({ type: "stop", eid, values: { name: eid } })),
  ]);
}

/** What is told when all effects have come. */
function lastRun(): ToldRun {
  const behind = ["effect", "after"];
  return told(perfectRun().snapshots.map((one) => (behind.includes(one.type) ? { ...one, values: { n: 3 } } : one)));
}

function perfectEnd(): FleetFacts {
  const tasks = new Map([
    ["lone seen", ["3-lone-lone-1-fleet/correlation/lone/doubled"]],
    ["lone counted", ["3-lone-lone-1-fleet/timeseries/lone/chunks/counted"]],
    ["round began", ["1000"]],
    ["round ended", ["1000"]],
  ]);
  return {
    ...{ runs: [lastRun()], told: tasks, kept: tasks },
    referrers: new Map([
      ...[...lines.lasting, ...lines.doomed].map((eid): [string, string[]] => [eid, []]),
      ["line-1", ["bus-1"]],
      ["line-2", ["bus-2"]],
      ["stop-1 1", ["bus-1"]],
      ["stop-2 1", ["bus-3", "bus-2"]],
    ]),
    references: [
      { eid: "bus-1", attr: "line", target: "line-1" },
      { eid: "bus-2", attr: "line", target: "line-2" },
    ],
    mortals: ["guest-1", "badge-1"],
  };
}

function line(eid: string, riders: readonly number[]): ToldSnapshot {
  const fastest = Math.max(0, ...riders.map((number) => rides[number - 1]?.speed ?? 0));
  const buses = riders.map((number) => ({ eid: `bus-${number}` }));
  return { type: "line", eid, values: { name: eid, size: riders.length, fastest, buses } };
}

function snapshot(type: string, number: number, values: ToldSnapshot["values"]): ToldSnapshot {
  return { type, eid: `${type}-${number}`, values };
}

function told(snapshots: readonly ToldSnapshot[]): ToldRun {
  const times = { at: 1_000, startedAt: 1_000, endedAt: 2_000 };
  return { tick: 3, ...times, kind: "full", computed: snapshots.length, refused: 0, problems: [], snapshots };
}

/** The run with other values of one entity. */
function changed(key: string, values: ToldSnapshot["values"]): ToldRun {
  return told(
    perfectRun().snapshots.map((one) => (keyOf(one) === key ? { ...one, values: { ...one.values, ...values } } : one)),
  );
}

function keyOf({ type, eid }: ToldSnapshot): string {
  return `${type} ${eid}`;
}
