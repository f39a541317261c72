import { toStorableText } from "../../modules/value-limits.ts";

/** What the hooks of a snapshot run did, by hook id; several reports can be added up. */
export type SnapshotReport = Map<string, HookReport>;

export interface HookReport {
  calls: number;
  /** Calls that failed for good: they changed nothing. */
  failures: number;
  /** Changes of attributes that the hook did not declare: not taken. */
  undeclared: number;
  /** Values that the attribute's type refuses, and tasks that break a rule: not taken. */
  refused: number;
  tasks: number;
  /** How long the hook ran, over all entities of its type: waiting for its promises included. */
  ms: number;
  /** The first problems, as text that names the entity. */
  readonly problems: string[];
}

export type HookProblem = "failures" | "undeclared" | "refused";

/** So many problems of a hook are told in words; all are counted. */
const problemsMax = 5;
const problemMaxChars = 500;

/** Finds or adds a hook's part of a report. */
export function reportOf(report: SnapshotReport, hook: string): HookReport {
  let own = report.get(hook);
  if (own === undefined) {
    own = { calls: 0, failures: 0, undeclared: 0, refused: 0, tasks: 0, ms: 0, problems: [] };
    report.set(hook, own);
  }
  return own;
}

/** Counts a problem and keeps the first ones in words. */
export function noteProblem(own: HookReport, problem: HookProblem, what: string): void {
  own[problem]++;
  if (own.problems.length < problemsMax) own.problems.push(toStorableText(what.slice(0, problemMaxChars)));
}

/** Adds one report to another. */
export function addReport(sum: SnapshotReport, added: SnapshotReport): void {
  for (const [hook, { calls, failures, undeclared, refused, tasks, ms, problems }] of added) {
    const own = reportOf(sum, hook);
    own.calls += calls;
    own.failures += failures;
    own.undeclared += undeclared;
    own.refused += refused;
    own.tasks += tasks;
    own.ms += ms;
    own.problems.push(...problems.slice(0, problemsMax - own.problems.length));
  }
}
