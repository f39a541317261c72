import { execFileSync } from "node:child_process";
import { isOnPath } from "./program.ts";

/** What Prometheus' own checker has against an exposition; nothing where that program is not on the PATH. */
export function complaintsOfPromtool(input: string): string {
  if (!isOnPath("promtool")) return "";
  return execFileSync("promtool", ["check", "metrics"], { input, encoding: "utf8", stdio: "pipe" });
}
