import { mkdir, mkdtemp, readdir, rm, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { BaseModule, type ModuleConfig } from "../../modules/base-module.ts";
import { loadModules } from "../../node/module-loader.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { testModel } from "../support/test-model.ts";

const model = testModel({ route: { delay: { kind: "observations", type: "int" } } });
const log = { debug: vi.fn(), info: vi.fn(), warn: vi.fn(), error: vi.fn() };
const clock = createManualClock();
let folder = "";

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "starling-modules-"));
  await mkdir(join(folder, "modules"));
  vi.clearAllMocks();
});

afterEach(() => rm(folder, { recursive: true }));

/** Loads modules from the given files; all of them, or those that are named. */
async function load(files: Record<string, string>, enabled?: string[], configs: Record<string, ModuleConfig> = {}) {
  for (const [name, text] of Object.entries(files)) await writeFile(join(folder, "modules", name), text);
  return loadModules({
    modulesDir: join(folder, "modules"),
    enabled: enabled ?? Object.keys(files).map((file) => file.replace(/\.\w+$/, "")),
    moduleConfigs: configs,
    model,
    platformConfig: { nodeName: "test", model, config: {} },
    hookDefaults: { concurrency: 8, timeoutMs: 1000, retries: 2 },
    log: () => log,
    cacheDir: join(folder, "cache"),
    clock,
  });
}

/** A module of which `body` is the class' body. */
const moduleText = (body: string) =>
  `import { BaseModule, type CallbackRegistrar } from "starling/modules";\nexport class One extends BaseModule {\n${body}\n}\n`;

describe("module loader", () => {
  it("loads TypeScript with the files it imports, and its classes extend this program's BaseModule", async () => {
    const { modules, hooks } = await load(
      {
        "helper.ts": `export const later: number = 5;`,
        "one.ts": `import { later } from "./helper.ts";\n${moduleText(`
          declare private limit: number;
          constructor(...args: ConstructorParameters<typeof BaseModule>) {
            super(...args);
            args[2].registerOnNewAttrHook(this.onDelay, "route", "delay");
          }
          override loadConfig(_: unknown, config: { limit?: number }) { this.limit = config.limit ?? 0; }
          private onDelay(eid: string) { return [eid, this.limit + later]; }`)}`,
      },
      ["one"],
      { one: { limit: 37 } },
    );
    expect(modules[0]?.instances[0]).toBeInstanceOf(BaseModule);
    expect(modules[0]).toMatchObject({ name: "one", file: join(folder, "modules", "one.ts") });
    const [hook] = hooks.onNewAttr.get("route")?.get("delay") ?? [];
    expect(hook?.id).toBe("one/on_new_attr/route.delay/onDelay");
    expect(hook && Reflect.apply(hook.run, undefined, ["A-B"])).toEqual(["A-B", 42]);
  });

  it("loads JavaScript, default exports, and packages", async () => {
    const text = `import { BaseModule } from "starling/modules";
      import { basename } from "node:path";
      export const here = basename(import.meta.url);
      export default class extends BaseModule { start() { this.log.info({ here }, "up"); } }`;
    const { start } = await load({ "one.mjs": text });
    await start();
    expect(log.info).toHaveBeenCalledWith({ here: "one.mjs" }, "up");
  });

  it("gives a hash that follows the sources, not the place", async () => {
    const hashes: (string | undefined)[] = [];
    for (const text of [moduleText(""), moduleText(""), moduleText("// changed")]) {
      const { modules } = await load({ "one.ts": text });
      hashes.push(modules[0]?.hash);
    }
    expect(hashes[0]).toBe(hashes[1]);
    expect(hashes[0]).not.toBe(hashes[2]);
  });

  it("leaves no more of earlier versions in the cache than a few", async () => {
    await load({ "one.ts": moduleText("") });
    const old = new Date(Date.now() - 86_400_000);
    for (let i = 10; i < 50; i++) {
      const path = join(folder, "cache", `one-${"0".repeat(14)}${i}.mjs`);
      await writeFile(path, "");
      await utimes(path, old, old);
    }
    await load({ "one.ts": moduleText("// changed") });
    // Twenty, and the one in use.
    expect(await readdir(join(folder, "cache"))).toHaveLength(21);
  });

  it("refuses names that are no file names, unknown ones, and those enabled twice", async () => {
    const files = { "flights.ts": moduleText("") };
    await expect(load(files, ["../flights"])).rejects.toThrow("'../flights' is no module name");
    await expect(load(files, ["flight"])).rejects.toThrow(/module 'flight' is not in .*: did you mean 'flights'\?/);
    await expect(load(files, ["elsewhere"])).rejects.toThrow("; there is flights");
    await expect(load(files, ["flights", "flights"])).rejects.toThrow("enabled twice");
    await expect(load({ "flights.js": "" }, ["flights"])).rejects.toThrow("keep one of flights.ts, flights.js");
  });

  it("says of a Python module how to port it", async () => {
    const file = join(folder, "modules", "old.py");
    await expect(load({ "old.py": "" })).rejects.toMatchObject({
      code: "MODULE",
      message: `${file} is a Python module: see 'Porting a DP³ module' in the README`,
    });
  });

  it("names file and line of a syntax error and of a missing package", async () => {
    const file = join(folder, "modules", "one.ts");
    await expect(load({ "one.ts": "const a = 1;\nconst = 2;" })).rejects.toThrow(`${file}:2:7: `);
    const missing = load({ "one.ts": `import "no-such-package";` });
    await expect(missing).rejects.toThrow(/one\.ts:1:8: .*npm install no-such-package/s);
  });

  it("names file and line of what throws on load and in the constructor", async () => {
    await expect(load({ "one.ts": `type A = string;\n\nthrow new Error("boom");` })).rejects.toThrow(
      /module one \(.*one\.ts\) failed to load: Error: boom \(.*one\.ts:3\)/,
    );
    const text = moduleText(
      `constructor(...args) {\n super(...args);\n args[2].registerOnNewAttrHook(() => null, "rout", "x");\n }`,
    );
    await expect(load({ "one.ts": text })).rejects.toThrow(
      /^module one: registerOnNewAttrHook: entity type 'rout' .*did you mean 'route'\? \(.*one\.ts:5\)$/,
    );
  });

  it("refuses a file that exports no module", async () => {
    await expect(load({ "one.ts": "export class One {}" })).rejects.toThrow(
      'exports no module: export a class that extends BaseModule from "starling/modules"',
    );
  });

  it("starts in order, stops in reverse order, and stops what was started when one fails", async () => {
    const says = (name: string, start = "") =>
      moduleText(
        `start() { ${start} this.log.info({}, "start ${name}"); }\n async stop() { this.log.info({}, "stop ${name}"); }`,
      );
    const messages = () => log.info.mock.calls.map(([, message]) => message);
    const good = await load({ "a.ts": says("a"), "b.ts": says("b") });
    await good.start();
    await good.stop();
    await good.stop();
    expect(messages()).toEqual(["start a", "start b", "stop b", "stop a"]);
    log.info.mockClear();
    const bad = await load({ "a.ts": says("a"), "b.ts": says("b", "throw new Error('no network');") });
    await expect(bad.start()).rejects.toThrow("module b: start() failed: no network");
    expect(messages()).toEqual(["start a", "stop a"]);
  });

  it("bounds start and stop in time", async () => {
    const { start, stop } = await load({ "a.ts": moduleText("stop() { return new Promise(() => {}); }") });
    await start();
    const stopping = stop();
    await clock.advance(30_000);
    await stopping;
    const [{ err }] = log.error.mock.calls[0] ?? [{}];
    expect(err.message).toBe("module a: stop() did not end within 30000 ms");
    expect(clock.timers).toBe(0);
  });

  it("gives a module another configuration and raises its flag", async () => {
    const text = moduleText(
      `loadConfig(_, config) { if (config.bad) throw new Error("bad is bad"); this.seen = config; }`,
    );
    const { modules, refresh } = await load({ "a.ts": text });
    const instance = modules[0]?.instances[0];
    expect(instance?.refresh.raised).toBe(false);
    refresh("a", { limit: 3 });
    expect(instance).toMatchObject({ seen: { limit: 3 }, refresh: { raised: true } });
    expect(() => refresh("a", { bad: true })).toThrow("module a: loadConfig() failed: bad is bad");
    expect(() => refresh("aa", {})).toThrow("module 'aa' is not loaded: did you mean 'a'?");
  });
});
