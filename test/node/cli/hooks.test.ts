import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { repository } from "../../support/repository.ts";
import { run } from "./terminal.ts";

let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "starling-hooks-test-"));
  await mkdir(join(folder, "db_entities"));
  await mkdir(join(folder, "modules"));
  const entity = (id: string, attribs: string) =>
    writeFile(
      join(folder, `db_entities/${id}.yml`),
      `entity: {id: ${id}, name: ${id}, snapshot: true}\nattribs:\n${attribs}`,
    );
  await entity("line", "  risk: {type: plain, name: R, data_type: float}\n");
  await entity(
    "stop",
    '  line: {type: plain, name: L, data_type: "link<line; mirror=stops>"}\n' +
      "  level: {type: plain, name: X, data_type: int}\n" +
      "  counts: {type: timeseries, name: C, timeseries_type: irregular, timeseries_params: {}, series: {n: {data_type: int}}}\n",
  );
  await writeFile(join(folder, "processing_core.yml"), "modules_dir: modules\nenabled_modules: [buses]\n");
  await writeModule("");
});
afterAll(() => rm(folder, { recursive: true }));

function writeModule(more: string): Promise<void> {
  const text = `import { BaseModule } from "starling/modules";
export class Buses extends BaseModule {
  constructor(platformConfig, moduleConfig, registrar) {
    super(platformConfig, moduleConfig, registrar);
    const none = (name) => ({ [name]: () => null })[name];
    registrar.registerCorrelationHook(none("fuse"), "line", { dependsOn: [["stops", "level"]], mayChange: [["risk"]], pure: true });
    registrar.registerCorrelationHook(none("level"), "stop", { dependsOn: [], mayChange: [["level"]] });
    registrar.registerTimeseriesHook(none("count"), "stop", "counts");
    registrar.registerOnNewAttrHook(none("derive"), "stop", "line", { refresh: this.refresh, mayChange: [["level"]] });
    registrar.registerOnNewAttrHook(none("other"), "stop", "line");
    registrar.registerSnapshotFinalizeHook(none("end"));
    registrar.registerSnapshotInitHook(none("begin"));
    ${more}
  }
}
`;
  return writeFile(join(folder, "modules/buses.js"), text);
}

describe("starling hooks", () => {
  it("shows by entity type the order in which hooks run, what they read and may change", async () => {
    const { code, out, err } = await run(["hooks", folder]);
    expect({ code, err }).toEqual({ code: 0, err: "" });
    expect(out.replace(/ +/g, " ").replace(/^ /gm, "").split("\n")).toEqual([
      "every node",
      "order hook kind reads may change runs",
      "- buses.begin snapshot_init - - once",
      "- buses.end snapshot_finalize - - once",
      "",
      "stop",
      "order hook kind reads may change runs",
      "- buses.count timeseries counts - always",
      "1 buses.level correlation - level always",
      "2 buses.derive on_new_attr line level after a reload",
      "",
      "line",
      "order hook kind reads may change runs",
      "3 buses.fuse correlation stops.level risk on change",
      "",
    ]);
  });

  it("gives the same as JSON, in the order of a run", async () => {
    const { out } = await run(["hooks", folder, "--json"]);
    const { hooks } = JSON.parse(out) as { hooks: { name: string }[] };
    expect(hooks.map(({ name }) => name)).toEqual(["begin", "count", "level", "derive", "fuse", "end"]);
    expect(hooks[4]).toEqual({
      module: "buses",
      type: "line",
      attr: "",
      kind: "correlation",
      name: "fuse",
      dependsOn: ["stops.level"],
      mayChange: ["risk"],
      pure: true,
      order: 3,
    });
  });

  it("says so where there is none, and what is wrong where nothing can be shown", async () => {
    await writeModule(
      `registrar.registerCorrelationHook(none("again"), "stop", { dependsOn: [["line", "risk"]], mayChange: [["level"]] });`,
    );
    const cyclic = await run(["hooks", folder]);
    expect(cyclic).toMatchObject({ code: 1, out: "" });
    expect(cyclic.err).toContain(
      "buses/correlation/line/fuse → line.risk → buses/correlation/stop/again → stop.level → buses/correlation/line/fuse",
    );
    expect(cyclic.err).toContain("buses.js:13");
    const none = await run(["hooks", join(repository, "test/support/types-config")]);
    expect(none).toEqual({ code: 0, out: "no module registers a hook of snapshots\n", err: "" });
    expect(await run(["hooks", folder, "--address", "127.0.0.1:1"])).toMatchObject({ code: 2, out: "" });
  });
});
