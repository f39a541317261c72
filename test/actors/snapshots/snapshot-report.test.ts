import { expect, test } from "vitest";
import { noteProblem, reportOf } from "../../../actors/snapshots/snapshot-report.ts";
import { isStorableText } from "../../../modules/value-limits.ts";

test("what is said of a problem can be stored, wherever it is cut", () => {
  const report = new Map();
  for (const start of ["", "a"]) {
    const own = reportOf(report, `hook ${start}`);
    noteProblem(own, "failures", `${start}${"😀".repeat(10_000)}`);
    noteProblem(own, "failures", "a\0b\ud800");
    expect(own.problems.map(isStorableText)).toEqual([true, true]);
    expect([own.failures, own.problems[1]]).toEqual([2, "a\\u0000b\ufffd"]);
  }
});
