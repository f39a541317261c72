import { readFileSync } from "node:fs";

/** The version in package.json, which stands above both the sources and `dist`. */
export const version: string = readVersion();

function readVersion(): string {
  for (const path of ["../package.json", "../../package.json"]) {
    try {
      const { name, version } = JSON.parse(readFileSync(new URL(path, import.meta.url), "utf8")) as Record<
        string,
        string
      >;
      if (name === "starling" && version !== undefined) return version;
    } catch {
      // It stands one folder higher or lower: sources and dist differ in depth.
    }
  }
  return "unknown";
}
