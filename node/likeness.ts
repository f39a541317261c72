import { createHash } from "node:crypto";
import type { NodeRecord } from "../cluster/membership/membership.ts";
import { StarlingError } from "../proto/starling-error.ts";
import type { LoadedConfig } from "./config/load-config.ts";
import type { Modules } from "./module-loader.ts";

/** What must be alike on all nodes of a cluster: the model, the modules, and their configuration (R25). */
export interface Likeness {
  /** Of all parts (hex). */
  readonly hash: string;
  /** A hash (hex) of each part, by what a person calls it. */
  readonly parts: Readonly<Record<string, string>>;
}

/** What this node brings. */
export function describeLikeness(
  { model, moduleConfigs }: Pick<LoadedConfig, "model" | "moduleConfigs">,
  { modules }: Pick<Modules, "modules">,
): Likeness {
  const parts: Record<string, string> = { "the model": model.hash.slice(0, hashLength) };
  for (const { name, hash } of modules) {
    parts[`module ${name}`] = hash.slice(0, hashLength);
    parts[`the configuration of module ${name}`] = hashOf(moduleConfigs.get(name) ?? {});
  }
  // The order in which modules are enabled is the order of their hooks.
  return { hash: hashOf(parts), parts };
}

/** Refuses to be one of nodes that are not alike. Raises CONFIG with every difference. */
export function checkLikeness(own: Likeness, others: readonly NodeRecord[]): void {
  for (const { name, address, modelHash, parts = {} } of others) {
    if (modelHash === own.hash) continue;
    const names = new Set([...Object.keys(own.parts), ...Object.keys(parts)]);
    const different = [...names].filter((part) => own.parts[part] !== parts[part]);
    const what = different.length === 0 ? "the order of the modules" : different.join(", ");
    const remedy = "give all nodes the same, or set `rolling` while you replace one after another";
    throw new StarlingError("CONFIG", `node ${name} at ${address} differs from this one in ${what}: ${remedy}`);
  }
}

const hashLength = 16;

function hashOf(value: unknown): string {
  return createHash("sha256").update(JSON.stringify(value)).digest("hex").slice(0, hashLength);
}
