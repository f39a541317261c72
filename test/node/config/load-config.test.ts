import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { loadConfig } from "../../../node/config/load-config.ts";
import { settingHelp, settingsSchema } from "../../../node/config/settings.ts";

const made: string[] = [];
afterEach(async () => {
  for (const path of made.splice(0)) await rm(path, { recursive: true });
});

async function directory(files: Record<string, string>): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), "starling-config-"));
  made.push(path);
  for (const [name, text] of Object.entries(files)) {
    await mkdir(dirname(join(path, name)), { recursive: true });
    await writeFile(join(path, name), text);
  }
  return path;
}

async function load(files: Record<string, string>, sources: { env?: Record<string, string>; flags?: object } = {}) {
  const path = await directory(files);
  return loadConfig(path, { env: sources.env ?? {}, flags: { ...sources.flags } });
}

async function failure(files: Record<string, string>, sources: { env?: Record<string, string>; flags?: object } = {}) {
  return load(files, sources).then(
    () => "",
    (error: Error) => error.message,
  );
}

const entity = "entity: {id: e, name: E, snapshot: true}\nattribs:\n  a: {type: plain, name: A, data_type: int}\n";
const dp3 = {
  "db_entities/e.yml": entity,
  "database.yml": "db_name: dp3\nconnection: {mode: standalone}\n",
  "processing_core.yml": "msg_broker: {host: rabbit}\nworker_processes: 2\nmodules_dir: ../\nenabled_modules: [one]\n",
  "event_logging.yml": "redis: {host: redis}\ngroups: {te: {intervals: [1m]}}\n",
  "history_manager.yml":
    'aggregation_schedule: {minute: "*/10"}\ndatapoint_cleaning_schedule: {minute: "*/30"}\nsnapshot_cleaning: {schedule: {minute: "15,45"}, older_than: 7d}\ndatapoint_archivation: {schedule: {hour: 2, minute: 0}, older_than: 7d, archive_dir: null}\n',
  "snapshots.yml": 'creation_rate: {minute: "*/15"}\n',
  "control.yml": "allowed_actions: [make_snapshots]\n",
  "updater.yml": 'update_batch_cron: {minute: "*/5"}\nupdate_batch_period: 5m\n',
  "garbage_collector.yml": "collection_rate: {hour: 4, minute: 30}\n",
  "telemetry.yml": 'attribute_bson_size_schedule: {hour: "*/6"}\n',
  "api.yml": "cors: {allow_origins: [x]}\ndatapoint_logger: {good_log: false}\n",
  "modules/one.yml": "threshold: 5\n",
  "notes.yaml": "not: read",
};

describe("a configuration directory", () => {
  it("of DP³ loads, and says once what means nothing here", async () => {
    const config = await load(dp3);
    expect(config.enabledModules).toEqual(["one"]);
    expect(config.moduleConfigs.get("one")).toEqual({ threshold: 5 });
    expect(config.modulesDir).toBe(tmpdir());
    expect(config.platform).toMatchObject({
      snapshots: { creationRate: { minute: "*/15", timezone: "UTC" }, keepEmpty: true },
      historyManager: { snapshotCleaning: { olderThanMs: 604_800_000 }, datapointArchivation: { archiveDir: null } },
      updater: { updateBatchPeriodMs: 300_000, cacheMaxEntries: 32 },
      allowedActions: ["make_snapshots"],
      corsAllowOrigins: ["x"],
      garbageCollector: { collectionRate: { hour: "4", minute: "30", timezone: "UTC" } },
      telemetry: { attributeSizeSchedule: { hour: "*/6", timezone: "UTC" } },
    });
    expect(config.ignored.map((line) => line.replace(/:[^:]*$/, ""))).toEqual([
      "database.yml",
      "processing_core.yml: msg_broker",
      "processing_core.yml: worker_processes",
      "api.yml: datapoint_logger",
      "event_logging.yml: redis",
    ]);
  });
  it("with five errors in four files shows all five, each with its line", async () => {
    const message = await failure({
      ...dp3,
      "db_entities/e.yml":
        "entity:\n  id: e\n  name: E\n  snapshot: true\nattribs:\n  a:\n    type: plain\n    name: A\n    data_type: integer\n  b:\n    type: plain\n    name: B\n    data_type: int\n    probability: true\n",
      "updater.yml": "update_batch_cron:\n  minute: 60\nupdate_batch_period: 5m\n",
      "processing_core.yml": "modules_dir: ./nowhere\nenabled_modules: []\n",
      "starling.yml": "# ours\nlanes: 1000\n",
    });
    expect(message).toContain("5 problem(s)");
    expect(message).toMatch(/^db_entities\/e\.yml:9: attribs\.a\.data_type: .*found "integer"; allowed .*int64/m);
    expect(message).toMatch(/^db_entities\/e\.yml:14: attribs\.b\.probability: unknown key/m);
    expect(message).toMatch(/^updater\.yml:2: update_batch_cron\.minute: .*found 60; allowed 0 to 59/m);
    expect(message).toMatch(/^processing_core\.yml:1: modules_dir: there is no such directory/m);
    expect(message).toMatch(/^starling\.yml:2: lanes: .*found 1000; allowed at most 64/m);
  });
  it("that is broken YAML shows file and line", async () => {
    expect(await failure({ "db_entities/e.yml": `${entity}  b: [\n` })).toMatch(/db_entities\/e\.yml:\d+: /);
    expect(await failure({ "starling.yml": "lanes: 1\nlanes: 2\n" })).toMatch(/starling\.yml:2: /);
  });
  it("that is none, or not there, is refused", async () => {
    expect(await failure({ "other.yml": "a: 1" })).toMatch(/no configuration .*found 1 other/);
    await expect(loadConfig("/nonexistent/x", { env: {}, flags: {} })).rejects.toThrow(/cannot be read/);
  });
  it("without a file keeps its defaults; an empty file is as none", async () => {
    const config = await load({ "db_entities/e.yml": entity, "updater.yml": "" });
    expect(config.platform).toMatchObject({
      updater: null,
      historyManager: null,
      histories: { aggregation: { minute: "*/10" }, cleaning: { minute: "*/30" } },
      modulesDir: null,
      snapshots: { creationRate: { minute: "*/30" } },
    });
    expect(config.settings).toEqual(settingsSchema.parse({}));
  });
  it("notes an unknown file with the name that was meant", async () => {
    const { ignored } = await load({ "db_entities/e.yml": entity, "snapshot.yml": "a: 1" });
    expect(ignored).toEqual(["snapshot.yml: not a file of the configuration: did you mean snapshots.yml?"]);
  });
  it("keeps paths out of module names", async () => {
    expect(
      await failure({ "db_entities/e.yml": entity, "processing_core.yml": 'enabled_modules: ["../evil"]' }),
    ).toMatch(/not a name of a module/);
  });
});

describe("a schedule", () => {
  const cron = (text: string) => failure({ "db_entities/e.yml": entity, "snapshots.yml": `creation_rate: ${text}` });
  it.each([
    "{}",
    "{minute: 5}",
    '{minute: "1,2"}',
    '{hour: "8-17"}',
    '{day_of_week: "mon-fri"}',
    '{month: "*/3"}',
    '{year: "2030"}',
    "{timezone: Europe/Prague}",
  ])("%s is accepted", async (text) => expect(await cron(text)).toBe(""));
  it.each([
    "{hour: 25}",
    '{minute: "60"}',
    '{minute: "5-1"}',
    '{minute: "*/0"}',
    '{minute: "1 , 2"}',
    "{minutes: 5}",
    "{timezone: Mars}",
    "{day_of_week: 7}",
    "5",
    '{minute: "5/2"}',
  ])("%s is refused", async (text) => expect(await cron(text)).toMatch(/^snapshots\.yml:1: creation_rate/m));
});

describe("settings", () => {
  const files = { "starling.yml": "lanes: 3\nflush_interval_ms: 2s\nresident_max_bytes: 64MiB\n" };
  const url = (host: string) => `postgres://${host}/starling`;
  it("come from the file, then the environment, then the flags", async () => {
    const list = { "starling.yml": `${files["starling.yml"]}database_urls: ["${url("a")}"]\n` };
    expect((await load(list)).settings).toMatchObject({
      lanes: 3,
      flushIntervalMs: 2000,
      residentMaxBytes: 64 * 2 ** 20,
      databaseUrls: [url("a")],
    });
    const env = { STARLING_LANES: "4", STARLING_DATABASE_URLS: `${url("b")}, ${url("c")}` };
    expect((await load(list, { env })).settings).toMatchObject({ lanes: 4, databaseUrls: [url("b"), url("c")] });
    expect(
      (await load(files, { env: { STARLING_LANES: "4" }, flags: { lanes: 5, dataDir: undefined } })).settings,
    ).toMatchObject({ lanes: 5, dataDir: ".starling" });
    expect((await load(files, { env: { STARLING_LANES: "" } })).settings.lanes).toBe(3);
  });
  it("that are wrong name their source and never show a password", async () => {
    const message = await failure(
      { "starling.yml": "lane: 3\nlisten: nowhere\ndatabase_urls: [postgres://u:secret@h/x, mysql://u:secret@h/x]\n" },
      {
        env: { STARLING_LANS: "3", STARLING_DATABASE_URL: "mysql://u:se/cr:et@h/d" },
        flags: { logLevel: "loud", flushIntervalMs: -1 },
      },
    );
    expect(message).toMatch(/^starling\.yml:1: lane: unknown key: did you mean lanes\?/m);
    expect(message).toMatch(/^starling\.yml:2: listen: .*found "nowhere"; allowed host:port/m);
    expect(message).toMatch(/^environment: STARLING_LANS: unknown: did you mean STARLING_LANES\?/m);
    expect(message).toMatch(/^environment: STARLING_DATABASE_URL: .*mysql:\/\/u:…@h\/d/m);
    expect(message).toMatch(/^command line: --log-level: .*allowed trace, debug, info/m);
    expect(message).toMatch(/^command line: --flush-interval-ms: .*allowed at least 1/m);
    expect(message).not.toMatch(/secret|se\/cr/);
  });
  it("that ask for a cluster without a database that its nodes share are refused, wherever they stand", async () => {
    const remedy = "several nodes need a PostgreSQL that all of them use";
    expect(await failure({ "starling.yml": "lanes: 3\netcd: [a:1]\n" })).toContain(`starling.yml:2: etcd: ${remedy}`);
    expect(await failure(files, { env: { STARLING_ETCD: "b:1, c:2" } })).toContain(`STARLING_ETCD: ${remedy}`);
    expect(await failure(files, { flags: { etcd: ["a:1"] } })).toContain(`--etcd: ${remedy}`);
    expect((await load({ "starling.yml": "etcd: null\n" })).settings.etcd).toBeNull();
    const flags = { etcd: "a:1,b:2", databaseUrl: "postgres://h/d" };
    expect((await load(files, { flags })).settings.etcd).toEqual(["a:1", "b:2"]);
  });
  it("leaves variables alone that Kubernetes or the command line set", async () => {
    const config = await load(files, {
      env: { STARLING_PORT: "x", STARLING_SERVICE_HOST: "y", STARLING_CONFIG: "z", STARLING_FURTHERMORE: "1" },
    });
    expect(config.ignored).toEqual(["environment: STARLING_FURTHERMORE: not a setting"]);
  });
  it("each have a line of description and names for file, environment and flag", () => {
    const help = settingHelp();
    expect(help.every(({ description }) => description.length > 5 && !description.includes("\n"))).toBe(true);
    expect(help.find(({ name }) => name === "hookTasksMaxBytes")).toMatchObject({
      yamlKey: "hook_tasks_max_bytes",
      variable: "STARLING_HOOK_TASKS_MAX_BYTES",
      flag: "--hook-tasks-max-bytes",
      fallback: 4 * 2 ** 20,
    });
  });
});
