import type { Clock } from "../../proto/clock.ts";
import { withDeadline } from "../../proto/deadline.ts";
import { toStarlingError } from "../../proto/starling-error.ts";
import { createReport, type Finding } from "./finding.ts";

/** Bounds every look: what has not come to an end by then is a finding of its own. */
const lookMs = 2_000;

/** What `run` finds. One that fails, or takes longer than two seconds, is a problem at `place`. */
export async function look(
  clock: Clock,
  place: string,
  run: () => Promise<readonly Finding[]>,
): Promise<readonly Finding[]> {
  try {
    return await withDeadline(run(), { clock, deadlineMs: lookMs, text: "the look did not come to an end" });
  } catch (error) {
    return failedLook(place, error);
  }
}

/** A look that did not come to an end. */
export function failedLook(place: string, error: unknown): readonly Finding[] {
  const report = createReport(place);
  const remedy = "is this machine overloaded, or does a disk or a network folder hang?";
  report.problem("look", { found: toStarlingError(error).message, expected: "a look that ends", remedy });
  return report.findings;
}
