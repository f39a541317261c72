import { spawnSync } from "node:child_process";

/** Whether a program that tests can do without is there. */
export function isOnPath(program: string): boolean {
  return spawnSync(program, ["--version"], { stdio: "ignore" }).error === undefined;
}
