import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { StarlingError } from "../../proto/starling-error.ts";

/** The folder of Starling's package.json, from the sources and from `dist` alike. */
export function packageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, "package.json"))) {
    const parent = dirname(folder);
    if (parent === folder) throw new StarlingError("INTERNAL", "no package.json is above the command line's files");
    folder = parent;
  }
  return folder;
}
