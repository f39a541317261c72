import type { NodeStatus } from "../../proto/admin-client.ts";
import { type CallsOptions, openCalls } from "../../proto/client-calls.ts";
import { type StarlingError, toStarlingError } from "../../proto/starling-error.ts";
import { formatDuration } from "../cli/progress.ts";
import { createReport, type Finding, type Report } from "./finding.ts";

/** What a node says of itself. */
export type NodeExamination =
  | {
      readonly kind: "answered";
      readonly status: NodeStatus;
      /** Open ones, up to the bound; null: they could not be counted. */
      readonly deadLetters: number | null;
    }
  | { readonly kind: "failed"; readonly error: StarlingError };

const deadLettersMax = 1_000;

/** Asks a node. `stepMs` bounds each of three steps. Never raises: what failed is part of the answer. */
export async function examineNode(options: CallsOptions, stepMs: number): Promise<NodeExamination> {
  try {
    const { admin, close } = await openCalls({ ...options, connectMs: stepMs, callMs: stepMs });
    try {
      const [status, letters] = await Promise.all([
        admin.status(),
        // They stand in the database, which may be away while the node can still tell of itself.
        admin.deadLetters({ status: "open", limit: deadLettersMax }).catch(() => null),
      ]);
      return { kind: "answered", status, deadLetters: letters?.letters.length ?? null };
    } finally {
      await close();
    }
  } catch (error) {
    return { kind: "failed", error: toStarlingError(error, "UNAVAILABLE") };
  }
}

export interface NodeExpectation {
  readonly address: string;
  /** A person named it, so it has to run; else it is enough to say that it does not. */
  readonly isNamed: boolean;
  /** Of this program. */
  readonly version: string;
  /** Entries; null: the configuration is not known. */
  readonly lagMaxEntries: number | null;
}

/** Judges what a node said. */
export function judgeNode(examination: NodeExamination, expectation: NodeExpectation): readonly Finding[] {
  const report = createReport(`node ${expectation.address}`);
  if (examination.kind === "failed") judgeFailure(report, examination.error, expectation.isNamed);
  else {
    judgeStatus(report, examination.status, expectation.version);
    judgeLag(report, examination.status, expectation.lagMaxEntries);
    judgeDeadLetters(report, examination.deadLetters);
  }
  return report.findings;
}

function judgeFailure(report: Report, error: StarlingError, isNamed: boolean): void {
  if (/ECONNREFUSED|ENOENT/.test(error.message)) {
    if (!isNamed) return report.ok("running", "no node runs there");
    const remedy = "start the node, or name another address";
    return report.problem("running", { found: "nothing listens there", expected: "a node that runs", remedy });
  }
  const isRefused = ["UNAUTHENTICATED", "PERMISSION_DENIED"].some((code) => error.message.includes(code));
  report.problem("running", {
    found: isRefused ? error.message : `no answer: ${error.message}`,
    expected: "a node that answers",
    remedy: isRefused
      ? "name a token with the scope `read`"
      : "is it frozen or overloaded, is it another program, or is the way there cut? Look at the process and its log",
  });
}

function judgeStatus(report: Report, status: NodeStatus, version: string): void {
  const { node, name, state, problem, uptimeS } = status;
  if (state === "serving") report.ok("state", `serving as ${name || node}, up ${formatDuration(uptimeS * 1000)}`);
  else if (state === "leaving") {
    const remedy = "wait until it has handed its shards over and ended";
    report.warning("state", { found: "leaving", expected: "serving", remedy });
  } else {
    const found = `${state}: ${problem === "" ? "it does not say why" : problem}`;
    const remedy = problem.startsWith("STORE")
      ? "it comes back by itself when PostgreSQL answers: see the findings about postgresql"
      : "look at its log";
    report.problem("state", { found, expected: "serving", remedy });
  }
  if (status.version === version) report.ok("version", version);
  else {
    const expected = `${version}, as this program`;
    const remedy = "fine while nodes are replaced one after another; else bring all to one version";
    report.warning("version", { found: status.version, expected, remedy });
  }
}

function judgeLag(report: Report, { shards }: NodeStatus, lagMaxEntries: number | null): void {
  const lags = shards.map(({ lag }) => lag);
  const most = Math.max(0, ...lags);
  const sum = lags.reduce((total, lag) => total + lag, 0);
  const found = `${sum} log entries wait in ${shards.length} shards, at most ${most} in one`;
  if (lagMaxEntries === null || most <= lagMaxEntries / 2) return report.ok("lag", found);
  report.warning("lag", {
    found,
    expected: `at most half of lag_max_entries, ${lagMaxEntries}, in each: there senders have to wait`,
    remedy: "look for slow hooks (starling modules) and a slow PostgreSQL, or add a node",
  });
}

function judgeDeadLetters(report: Report, deadLetters: number | null): void {
  if (deadLetters === 0) return report.ok("dead letters", "none");
  if (deadLetters === null) {
    const remedy = "see the findings about postgresql, where they stand";
    return report.warning("dead letters", { found: "they could not be counted", expected: "none open", remedy });
  }
  const found = `${deadLetters}${deadLetters === deadLettersMax ? " or more" : ""} open`;
  const remedy = "starling dead-letter list; mend the cause, then replay or discard them";
  report.warning("dead letters", { found, expected: "none open", remedy });
}
