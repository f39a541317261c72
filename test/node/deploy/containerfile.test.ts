import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { settingHelp } from "../../../node/config/settings.ts";
import { planHttpPort } from "../../../node/open-http.ts";
import { repository } from "../../support/repository.ts";

/* node/deploy/Containerfile: whether it agrees with the repository and the code. No image is built. */

const text = await readFile(join(repository, "node/deploy/Containerfile"), "utf8");
const instructions = text
  .replace(/\\\n\s*/g, "")
  .split("\n")
  .filter((line) => /^[A-Z]+ /.test(line));
const build = instructions.slice(
  0,
  instructions.lastIndexOf(instructions.findLast((line) => line.startsWith("FROM ")) ?? ""),
);
const run = instructions.slice(build.length);

function argument(name: string): string {
  return (run.find((line) => line.startsWith(`${name} `)) ?? "").slice(name.length + 1);
}

describe("the container file", () => {
  it("copies what there is, and all folders that the compiler wants but the tests", async () => {
    const copied = build.filter((line) => line.startsWith("COPY ")).flatMap((line) => line.split(" ").slice(1, -1));
    for (const path of copied) expect(existsSync(join(repository, path)), path).toBe(true);
    const { include } = JSON.parse(await readFile(join(repository, "tsconfig.json"), "utf8")) as { include: string[] };
    expect(copied).toEqual(expect.arrayContaining(include.filter((folder) => folder !== "test")));
  });

  it("installs what the lock file says, and leaves out what only building needs", () => {
    expect(build.find((line) => line.startsWith("RUN npm ci"))).toBeDefined();
    expect(build.at(-1)).toContain("npm prune --omit=dev");
    for (const folder of ["package.json", "node_modules", "dist"]) {
      expect(run.filter((line) => line.startsWith("COPY --from=build")).join("\n")).toContain(
        `/opt/starling/${folder}`,
      );
    }
  });

  it("runs the command line as package.json does, as nobody in particular", async () => {
    const { bin, scripts } = JSON.parse(await readFile(join(repository, "package.json"), "utf8")) as {
      bin: { starling: string };
      scripts: { starling: string };
    };
    const entry = JSON.parse(argument("ENTRYPOINT")) as string[];
    expect(entry.join(" ")).toBe(scripts.starling.replace(bin.starling, `/opt/starling/${bin.starling}`));
    expect(JSON.parse(argument("CMD"))).toEqual(["node", "/etc/starling"]);
    expect(argument("USER")).toBe("node");
  });

  it("sets settings that there are, and asks for health where it is told", () => {
    const variables = argument("ENV")
      .split(" ")
      .map((pair) => pair.split("="));
    const known = settingHelp().map(({ variable }) => variable);
    expect([...known, "NODE_ENV"]).toEqual(expect.arrayContaining(variables.map(([name]) => name)));
    const given = Object.fromEntries(variables) as Record<string, string>;
    const port = Number(given.STARLING_LISTEN?.split(":")[1]);
    expect(given.STARLING_HTTP_LISTEN).toBe(`0.0.0.0:${planHttpPort(port)}`);
    expect(argument("EXPOSE")).toBe(`${port} ${planHttpPort(port)}`);
    expect(argument("HEALTHCHECK")).toContain(`http://127.0.0.1:${planHttpPort(port)}/healthz`);
    expect(argument("VOLUME")).toBe(given.STARLING_DATA_DIR);
  });

  it("is of a Node.js that package.json allows", async () => {
    const { engines } = JSON.parse(await readFile(join(repository, "package.json"), "utf8")) as {
      engines: { node: string };
    };
    const least = Number(/\d+/.exec(engines.node)?.[0]);
    for (const line of instructions.filter((one) => one.startsWith("FROM "))) {
      expect(Number(/node:(\d+)/.exec(line)?.[1])).toBeGreaterThanOrEqual(least);
    }
  });
});
