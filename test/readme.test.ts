import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { settingHelp } from "../node/config/settings.ts";
import { errorCodes } from "../proto/starling-error.ts";
import { run } from "./node/cli/terminal.ts";
import { repository } from "./support/repository.ts";

const readme = await readFile(join(repository, "README.md"), "utf8");
const { scripts } = JSON.parse(await readFile(join(repository, "package.json"), "utf8")) as {
  scripts: Record<string, string>;
};

/** Fenced blocks of a language, without their fences. */
function blocks(language: string): string[] {
  return [...readme.matchAll(/^```(\w*)\n([\s\S]*?)^```$/gm)]
    .filter(([, found]) => found === language)
    .map(([, , text = ""]) => text);
}

/** Cells of the rows of the table with this header. */
function table(...header: readonly string[]): string[][] {
  const lines = readme.split("\n").map(cellsOf);
  const start = lines.findIndex((cells) => cells?.join("|") === header.join("|"));
  const rows = lines.slice(start + 2);
  return rows.slice(0, rows.indexOf(null)).filter((cells) => cells !== null);
}

function cellsOf(line: string): string[] | null {
  if (!line.startsWith("|")) return null;
  const cells = line.split("|").slice(1, -1);
  return cells.map((cell) => cell.trim());
}

const commands = blocks("sh").flatMap((block) => block.trim().split("\n"));
const commandLines = commands
  // Several nodes are other tests': readme-cluster.test.ts, node/local-cluster.test.ts.
  .filter(
    (command) => command.startsWith("npm run --silent starling -- ") && !/127\.0\.0\.1:470| cluster /.test(command),
  )
  .map((command) => command.split(" -- ")[1]?.split(" ") ?? []);

describe("the README's tables", () => {
  it("of errors is the table of codes", () => {
    const codes = Object.entries(errorCodes).map(([code, { retry, means }]) => [
      `\`${code}\``,
      retry ? "yes" : "no",
      means,
    ]);
    expect(table("code", "retry", "meaning")).toEqual(codes);
  });

  it("of settings is what the configuration knows", () => {
    const settings = settingHelp().map(({ yamlKey, fallback, description }) => {
      const none = fallback === null || (Array.isArray(fallback) && fallback.length === 0);
      return [`\`${yamlKey}\``, none ? "none" : `\`${fallback}\``, description];
    });
    expect(table("key", "default", "meaning")).toEqual(settings);
  });

  it("of commands names commands that exist, and all of them", async () => {
    const named = table("command", "does").map(([cell = ""]) => cell.replaceAll("`", "").split(" ").slice(1));
    const words = named.map((parts) => parts.filter((part) => /^[a-z-]+$/.test(part)));
    for (const command of words) expect((await run([...command, "--help"])).code, command.join(" ")).toBe(0);
    const { out } = await run(["--help"]);
    const known = [...(out.split("Commands:")[1] ?? "").matchAll(/^ {2}([a-z-]+)/gm)].map(([, name]) => name);
    expect([...new Set(words.map(([first]) => first)), "help"].sort()).toEqual([...new Set(known)].sort());
  });
});

describe("the README's commands", () => {
  let folder = "";
  let demo: ChildProcess;
  let address = "";
  let http = "";
  let said = "";

  /** Starts the example as the README does, on an embedded PostgreSQL; resolves when it has told all. */
  async function startDemo(): Promise<void> {
    const main = join(repository, "dist/node/cli/main.js");
    const args = [main, "demo", "--data-dir", join(folder, "data"), "--listen", "127.0.0.1:0"];
    said = "";
    demo = spawn(process.execPath, args, { cwd: repository, stdio: ["ignore", "pipe", "inherit"] });
    await new Promise<void>((resolve, reject) => {
      demo.once("exit", (code) => reject(new Error(`the demo ended with ${code}:\n${said}`)));
      demo.stdout?.setEncoding("utf8").on("data", (text: string) => {
        said += text;
        if (said.includes("serving until Ctrl-C")) resolve();
      });
    });
    address = /^gRPC +(\S+)/m.exec(said)?.[1] ?? "";
    http = /^HTTP +(\S+)/m.exec(said)?.[1] ?? "";
  }

  async function stopDemo(signal: NodeJS.Signals): Promise<number | null> {
    if (demo.exitCode === null) {
      const ended = once(demo, "exit");
      demo.kill(signal);
      await ended;
    }
    return demo.exitCode;
  }

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "starling-readme-"));
    await startDemo();
  }, 120_000);

  afterAll(async () => {
    await stopDemo("SIGTERM");
    await rm(folder, { recursive: true, force: true });
  });

  it("of npm are scripts that exist", () => {
    const used = [...readme.matchAll(/npm (start|test|run (?:--silent )?(\S+))/g)].map(
      ([, verb, name]) => name ?? verb ?? "",
    );
    expect(used).toEqual(expect.arrayContaining(["start", "test", "starling"]));
    for (const script of used) expect(Object.keys(scripts)).toContain(script.replaceAll("`", ""));
  });

  it("show what the README shows", () => {
    expect(said).toMatch(
      /[\d,]+ datapoints in .+: [\d,]+\/s from the first sent to the last processed, hooks included/,
    );
    for (const line of [
      "56,112 accepted and durable, 0 rejected",
      "12 routes with 48 datapoints refused by the module flights: unknown airports, such as ATL-OZZ",
      "airport     3,376",
      "route       2,977",
    ]) {
      expect(said).toContain(line);
      expect(readme).toContain(line);
    }
    expect(said.match(/npm run --silent starling -- /g)).toHaveLength(3);
  });

  it("answer, each of them", async () => {
    expect(commandLines.length).toBeGreaterThan(8);
    for (const command of commandLines) {
      const args = command.map((part) => (part.startsWith("examples/") ? join(repository, part) : part));
      const ran = await run(args, { env: { STARLING_ADDRESS: address } });
      expect({ command, code: ran.code, err: ran.code === 0 ? "" : ran.err }).toEqual({ command, code: 0, err: "" });
      expect(ran.out).not.toBe("");
    }
  }, 120_000);

  it("and what it asks by HTTP is answered", async () => {
    const urls = commands.filter((one) => one.startsWith("curl ")).map((one) => one.split(" ").at(-1) ?? "");
    expect(urls.length).toBeGreaterThan(1);
    for (const url of urls) expect((await fetch(url.replace("127.0.0.1:4780", http))).status, url).toBe(200);
  });

  it("and its client's three lines run", async () => {
    const code = blocks("ts").find((block) => block.includes('"starling/client"')) ?? "";
    const client = join(repository, "proto/client.ts");
    const text = code.replace('"starling/client"', JSON.stringify(client)).replace("127.0.0.1:4700", address);
    const file = join(folder, "three-lines.ts");
    await writeFile(
      file,
      `${text}export const outcome = await client.entities.get({ type: "airport", eid: "SEA" });\nawait client.close();\n`,
    );
    const { outcome } = (await import(file)) as { outcome: { attributes: { city: { v: string } } } };
    expect(outcome.attributes.city.v).toBe("Seattle");
  });

  it("and a datapoint of a file as it shows one is accepted", async () => {
    const [datapoint = ""] = blocks("jsonl");
    const ran = await run(["send", "-"], { stdin: datapoint, env: { STARLING_ADDRESS: address } });
    expect(ran).toMatchObject({ code: 0, out: expect.stringContaining("accepted  1") });
  });

  it("and its modules load, with their model and their types", async () => {
    const [module = ""] = blocks("ts");
    const counting = blocks("ts").find((block) => block.includes("registrar.behaviour")) ?? "";
    const page = await readFile(join(repository, "test/support/actors-config/db_entities/page.yml"), "utf8");
    const [model = ""] = blocks("yaml");
    const config = join(folder, "config");
    await mkdir(join(config, "db_entities"), { recursive: true });
    await mkdir(join(config, "modules"));
    await writeFile(join(config, "db_entities/sensor.yml"), model);
    await writeFile(join(config, "modules/thermometer.ts"), module);
    await writeFile(join(config, "modules/counting.ts"), counting);
    await writeFile(join(config, "db_entities/page.yml"), page);
    const enabled = "modules_dir: modules\nenabled_modules: [thermometer, counting]\n";
    await writeFile(join(config, "processing_core.yml"), enabled);
    const { code, err } = await run(["check", config]);
    expect({ code, err }).toEqual({ code: 0, err: "" });
  });

  it("and a second start finds its data, and sends nothing again", async () => {
    const stored = async () => {
      const command = ["entity", "get", "route", "ATL-SEA", "--json"];
      const { token, ...record } = JSON.parse((await run(command, { env: { STARLING_ADDRESS: address } })).out);
      // Its epoch is the node's.
      return { ...record, seq: token.seq };
    };
    const before = await stored();
    expect(await stopDemo("SIGINT")).toBe(0);
    await startDemo();
    expect(said).toMatch(/^found the data of an earlier start: fed on .*, nothing is sent again$/m);
    expect(said).not.toContain("sending airports");
    for (const line of ["airport     3,376", "route       2,977"]) expect(said).toContain(line);
    expect(await stored()).toEqual(before);
  }, 120_000);
});
