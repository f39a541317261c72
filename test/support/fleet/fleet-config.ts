import { cp } from "node:fs/promises";
import { join } from "node:path";
import { repository } from "../repository.ts";

/** Writes the configuration of a cluster that has the types and modules of the tests of several nodes and those of a fleet. */
export async function writeFleetConfig(folder: string): Promise<void> {
  for (const part of ["cluster-config", "fleet-config"]) {
    await cp(join(repository, "test/support", part), folder, { recursive: true });
  }
}
