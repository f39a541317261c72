import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { repository } from "../../support/repository.ts";
import { run } from "./terminal.ts";

let folder = "";
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "starling-check-test-"));
});
afterEach(() => rm(folder, { recursive: true }));

async function write(files: Readonly<Record<string, string>>): Promise<void> {
  for (const [name, text] of Object.entries(files)) {
    await mkdir(join(folder, name, ".."), { recursive: true });
    await writeFile(join(folder, name), text);
  }
}

const thing =
  "entity:\n  id: thing\n  name: Thing\n  snapshot: false\nattribs:\n  n: {name: N, type: plain, data_type: int}\n";

describe("starling check", () => {
  it("finds the example good", async () => {
    const { code, out, err } = await run(["check", join(repository, "examples/flights/config")]);
    expect({ code, err }).toEqual({ code: 0, err: "" });
    expect(out).toMatch(/good; 2 entity types, \d+ attributes, modules flights/);
  });

  it("shows five different errors of one directory at once: file, line, key, found and allowed", async () => {
    await write({
      "db_entities/thing.yml": thing.replace("type: plain", "type: plane"),
      "db_entities/other.yml": thing,
      "db_entities/broken.yml": "entity: [\n",
      "processing_core.yml": "modules_dir: nowhere\nenabled_modules: []\n",
      "starling.yml": "listen: 4700\nflush_intervall_ms: 5\n",
    });
    const { code, out, err } = await run(["check", folder]);
    expect({ code, out }).toEqual({ code: 1, out: "" });
    const [head, ...problems] = err.trimEnd().split("\n");
    expect(head).toBe(`starling: CONFIG: the configuration in ${folder} has 6 problem(s):`);
    expect(problems).toEqual([
      // What is no YAML has no keys to name.
      expect.stringMatching(/^db_entities\/broken\.yml:2: Flow sequence .* end with a \] \(found .*; allowed YAML\)$/),
      "db_entities/other.yml:2: entity.id: the file must be named after the entity's id " +
        '(found "thing"; allowed other)',
      "db_entities/thing.yml:6: attribs.n.type: is not one of the choices: did you mean plain? " +
        '(found "plane"; allowed plain, observations, timeseries)',
      `processing_core.yml:1: modules_dir: there is no such directory (found ${join(folder, "nowhere")}; ` +
        "allowed a directory, relative to the configuration)",
      "starling.yml:1: listen: does not fit the setting (found 4700; allowed a value of type string)",
      expect.stringMatching(
        /^starling\.yml:2: flush_intervall_ms: unknown key: .* flush_interval_ms\? \(found 5; allowed .*, lanes,.*\)$/,
      ),
    ]);
    const { out: json } = await run(["check", folder, "--json"]);
    const told = JSON.parse(json) as { ok: boolean; problems: { code: string; message: string }[] };
    expect(told).toMatchObject({ ok: false, problems: [{ code: "CONFIG" }] });
    expect(told.problems[0]?.message.split("\n").slice(1)).toEqual(problems);
  });

  it("shows what is wrong with every module, not with the first", async () => {
    const modules = {
      "modules/empty.ts": "export const nothing = 1;\n",
      "modules/throws.ts": 'throw new Error("on load");\n',
      "modules/wrong.ts": `import { BaseModule } from "starling/modules";
        export class Wrong extends BaseModule {
          constructor(...args: ConstructorParameters<typeof BaseModule>) {
            super(...args);
            args[2].registerOnNewAttrHook(() => [], "thing", "m");
          }
        }`,
      "modules/old.py": "class Old(BaseModule): pass\n",
    };
    const core = "modules_dir: modules\nenabled_modules: [empty, throws, wrong, old, missing, empty]\n";
    await write({ "db_entities/thing.yml": thing, "processing_core.yml": core, ...modules });
    const { code, err } = await run(["check", folder]);
    expect(code).toBe(1);
    expect(err.match(/^starling: MODULE: /gm)).toHaveLength(6);
    expect(err).toContain("empty.ts) exports no module");
    expect(err).toContain("on load");
    expect(err).toContain("has no attribute 'm'");
    expect(err).toContain("old.py is a Python module");
    expect(err).toContain("module 'missing' is not in");
    expect(err).toContain("module 'empty' is enabled twice");
  });

  it("checks the types of modules, which loading does not look at", async () => {
    const text = `import { BaseModule } from "starling/modules";
      const wrong: number = "text";
      export class Typed extends BaseModule { readonly value = wrong; }`;
    const core = "modules_dir: modules\nenabled_modules: [typed]\n";
    await write({ "db_entities/thing.yml": thing, "processing_core.yml": core, "modules/typed.ts": text });
    const { code, err } = await run(["check", folder]);
    expect(code).toBe(1);
    expect(err).toMatch(/^starling: MODULE: .*typed\.ts:2: TS2322: /);
  });

  it("says of a directory that holds no configuration that it holds none", async () => {
    const { code, err } = await run(["check", folder]);
    expect(code).toBe(1);
    expect(err).toContain("no configuration");
  });
});
