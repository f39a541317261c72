import { writeSync } from "node:fs";
import { createFailPoint, noFailPoint, type OnFailPoint } from "../actors/lane/fail-point.ts";

/** Names the fail-point and the hit at which the process ends, `name:count`. For tests only. */
export const failPointVariable = "STARLING_FAIL_POINT";

const stderr = 2;

/** The fail-point that the environment arms: one JSON line on standard error, then SIGKILL to the own process. */
export function armFailPoint(env: Readonly<Record<string, string | undefined>>): OnFailPoint {
  const text = env[failPointVariable] ?? "";
  if (text === "") return noFailPoint;
  return createFailPoint(text, (failPoint, hits) => {
    writeSync(stderr, `${JSON.stringify({ failPoint, hits })}\n`);
    process.kill(process.pid, "SIGKILL");
  });
}
