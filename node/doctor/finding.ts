/** What a look at one thing showed. */
export interface Finding {
  readonly status: "ok" | "warning" | "problem";
  /** What was looked at, and where: `postgresql postgres://starling@db/starling`. */
  readonly place: string;
  /** Which of its qualities: `version`. The same over releases. */
  readonly check: string;
  readonly found: string;
  /** Empty where nothing certain is. */
  readonly expected: string;
  /** What to do; empty where all is well. */
  readonly remedy: string;
}

/** Something that is not as it should be. */
export type Complaint = Pick<Finding, "found" | "expected" | "remedy">;

/** Findings about one place. */
export interface Report {
  readonly findings: readonly Finding[];
  ok(check: string, found: string): void;
  /** It works, and may not do so for ever. */
  warning(check: string, complaint: Complaint): void;
  /** A node cannot work, or loses something. */
  problem(check: string, complaint: Complaint): void;
}

/** An empty report about a place. */
export function createReport(place: string): Report {
  const findings: Finding[] = [];
  return {
    findings,
    ok: (check, found) => findings.push({ status: "ok", place, check, found, expected: "", remedy: "" }),
    warning: (check, complaint) => findings.push({ status: "warning", place, check, ...complaint }),
    problem: (check, complaint) => findings.push({ status: "problem", place, check, ...complaint }),
  };
}

/** Bytes for people: `1.5 GiB`. */
export function formatBytes(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const power = Math.min(units.length - 1, Math.max(0, Math.floor(Math.log2(Math.max(1, bytes)) / 10)));
  const value = bytes / 1024 ** power;
  return `${value >= 100 || Number.isInteger(value) ? Math.round(value) : value.toFixed(1)} ${units[power]}`;
}
