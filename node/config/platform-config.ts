import { resolve } from "node:path";
import { type ConfigFile, type ConfigProblem, ConfigSection } from "../../modules/config-section.ts";
import { nearestHint } from "../../modules/nearest-name.ts";
import { type CronDict, readCron } from "./cron-dict.ts";

/** DP³'s files as they apply to Starling (reference 0.1); a file that is missing has its defaults, or is null. */
export interface PlatformConfig {
  /** Absolute; null if there are only built-in modules. */
  readonly modulesDir: string | null;
  readonly enabledModules: readonly string[];
  /** The content of `modules/<name>.yml` by name. */
  readonly moduleConfigs: ReadonlyMap<string, unknown>;
  readonly maxInlineGeneratedTasks: number;
  readonly snapshots: { readonly creationRate: CronDict; readonly keepEmpty: boolean };
  readonly historyManager: HistoryManagerConfig | null;
  /** When histories are merged, and when what is too old is dropped; also without a `history_manager.yml`. */
  readonly histories: { readonly aggregation: CronDict; readonly cleaning: CronDict };
  readonly updater: UpdaterConfig | null;
  readonly garbageCollector: { readonly collectionRate: CronDict };
  readonly telemetry: { readonly attributeSizeSchedule: CronDict };
  /** Names of the control actions that may be called. */
  readonly allowedActions: readonly string[];
  readonly corsAllowOrigins: readonly string[];
  /** Groups of event counters as written. */
  readonly eventGroups: unknown;
}

export interface HistoryManagerConfig {
  readonly aggregationSchedule: CronDict | null;
  readonly datapointCleaningSchedule: CronDict | null;
  readonly snapshotCleaning: Cleaning | null;
  readonly datapointArchivation: (Cleaning & { readonly archiveDir: string | null }) | null;
}

export interface Cleaning {
  readonly schedule: CronDict | null;
  readonly olderThanMs: number;
}

export interface UpdaterConfig {
  readonly updateBatchCron: CronDict | null;
  readonly updateBatchPeriodMs: number;
  readonly cacheManagementCron: CronDict;
  readonly cacheMaxEntries: number;
}

/** Parses the platform's files; adds problems, and to `ignored` what means nothing here. */
export function parsePlatform(
  directory: { readonly path: string; readonly files: readonly ConfigFile[] },
  problems: ConfigProblem[],
  ignored: string[],
): PlatformConfig {
  const files = new Map(directory.files.map((file) => [file.file, file]));
  noteFiles(files.keys(), ignored);
  const open = (name: string): ConfigSection | null => {
    const file = files.get(name);
    return file === undefined ? null : ConfigSection.ofFile(file, problems);
  };
  return {
    ...parseCore(open("processing_core.yml"), directory.path, ignored),
    moduleConfigs: moduleConfigs(files),
    ...parseSchedules(open),
    allowedActions: finished(open("control.yml"), (control) => control.textList("allowed_actions")) ?? [],
    corsAllowOrigins: parseApi(open("api.yml"), ignored),
    eventGroups: parseEventLogging(open("event_logging.yml"), ignored),
  };
}

/** Files that Starling reads, or knows to be of no meaning here. */
const knownFiles = [
  "api.yml",
  "control.yml",
  "database.yml",
  "event_logging.yml",
  "garbage_collector.yml",
  "history_manager.yml",
  "processing_core.yml",
  "snapshots.yml",
  "starling.yml",
  "telemetry.yml",
  "tokens.yml",
  "updater.yml",
];
const collectionDefault: CronDict = { hour: "3", minute: "0", second: "0", timezone: "UTC" };
const cacheDefault: CronDict = { hour: "2", minute: "0", second: "0", timezone: "UTC" };
const sizesDefault: CronDict = { hour: "3", minute: "15", timezone: "UTC" };
const snapshotDefault: CronDict = { minute: "*/30", timezone: "UTC" };
const aggregationDefault: CronDict = { minute: "*/10", timezone: "UTC" };
const historyCleaningDefault: CronDict = { minute: "*/30", timezone: "UTC" };
const moduleName = /^[A-Za-z_][A-Za-z0-9_-]*$/;
const countMax = 1_000_000;

function noteFiles(names: Iterable<string>, ignored: string[]): void {
  for (const name of names) {
    if (/^(db_entities|modules)\/[^/]+$/.test(name)) continue;
    if (name === "database.yml") ignored.push("database.yml: MongoDB is not used");
    else if (!knownFiles.includes(name))
      ignored.push(`${name}: not a file of the configuration${nearestHint(name, knownFiles)}`);
  }
}

function parseCore(core: ConfigSection | null, path: string, ignored: string[]) {
  if (core === null) return { modulesDir: null, enabledModules: [], maxInlineGeneratedTasks: 0 };
  note(core, "msg_broker", "processing_core.yml: msg_broker: RabbitMQ is not used", ignored);
  note(core, "worker_processes", "processing_core.yml: worker_processes: nodes join and leave by themselves", ignored);
  note(
    core,
    "worker_threads",
    "processing_core.yml: worker_threads: a node processes entities asynchronously",
    ignored,
  );
  const modulesDir = core.text("modules_dir", "");
  const parts = {
    modulesDir: modulesDir === "" ? null : resolve(path, modulesDir),
    enabledModules: moduleNames(core),
    maxInlineGeneratedTasks: core.int("max_inline_generated_tasks", 0, { min: 0, max: countMax }),
  };
  core.finish();
  return parts;
}

/** A module's name becomes part of a path, so it may not hold one. */
function moduleNames(core: ConfigSection): readonly string[] {
  const names = core.textList("enabled_modules");
  for (const [index, name] of names.entries()) {
    if (moduleName.test(name)) continue;
    core.report("enabled_modules", `not a name of a module, at position ${index}`, "letters, digits, _ and -", name);
  }
  return names;
}

function moduleConfigs(files: ReadonlyMap<string, ConfigFile>): Map<string, unknown> {
  const configs = new Map<string, unknown>();
  for (const [name, { value }] of files) {
    const module = /^modules\/([^/]+)\.yml$/.exec(name)?.[1];
    if (module !== undefined) configs.set(module, value);
  }
  return configs;
}

function parseSchedules(open: (name: string) => ConfigSection | null) {
  const snapshots = finished(open("snapshots.yml"), (section) => ({
    creationRate: readCron(section, "creation_rate", snapshotDefault),
    keepEmpty: section.bool("keep_empty", true),
  }));
  const collectionRate = finished(open("garbage_collector.yml"), (section) =>
    readCron(section, "collection_rate", collectionDefault),
  );
  const attributeSizeSchedule = finished(open("telemetry.yml"), (section) =>
    readCron(section, "attribute_bson_size_schedule", sizesDefault),
  );
  const historyManager = finished(open("history_manager.yml"), parseHistoryManager);
  return {
    snapshots: snapshots ?? { creationRate: snapshotDefault, keepEmpty: true },
    historyManager,
    histories: {
      aggregation: historyManager?.aggregationSchedule ?? aggregationDefault,
      cleaning: historyManager?.datapointCleaningSchedule ?? historyCleaningDefault,
    },
    updater: finished(open("updater.yml"), parseUpdater),
    garbageCollector: { collectionRate: collectionRate ?? collectionDefault },
    telemetry: { attributeSizeSchedule: attributeSizeSchedule ?? sizesDefault },
  };
}

function parseHistoryManager(section: ConfigSection): HistoryManagerConfig {
  section.raw("mark_datapoints_schedule");
  return {
    aggregationSchedule: readCron(section, "aggregation_schedule"),
    datapointCleaningSchedule: readCron(section, "datapoint_cleaning_schedule"),
    snapshotCleaning: finished(section.section("snapshot_cleaning", "required"), parseCleaning),
    datapointArchivation: finished(section.section("datapoint_archivation", "required"), (one) => ({
      ...parseCleaning(one),
      archiveDir: one.raw("archive_dir") === null ? null : one.text("archive_dir", "") || null,
    })),
  };
}

function parseCleaning(section: ConfigSection): Cleaning {
  return { schedule: readCron(section, "schedule"), olderThanMs: section.duration("older_than") };
}

function parseUpdater(section: ConfigSection): UpdaterConfig {
  return {
    updateBatchCron: readCron(section, "update_batch_cron"),
    updateBatchPeriodMs: section.duration("update_batch_period"),
    cacheManagementCron: readCron(section, "cache_management_cron", cacheDefault),
    cacheMaxEntries: section.int("cache_max_entries", 32, { min: 1, max: countMax }),
  };
}

function parseApi(api: ConfigSection | null, ignored: string[]): readonly string[] {
  if (api === null) return ["*"];
  note(api, "datapoint_logger", "api.yml: datapoint_logger: refused datapoints are answered, not logged", ignored);
  const origins = finished(api.section("cors"), (cors) => cors.textList("allow_origins", ["*"]));
  api.finish();
  return origins ?? ["*"];
}

function parseEventLogging(events: ConfigSection | null, ignored: string[]): unknown {
  if (events === null) return null;
  note(events, "redis", "event_logging.yml: redis: Redis is not used", ignored);
  const groups = events.raw("groups") ?? null;
  events.finish();
  return groups;
}

function note(section: ConfigSection, key: string, sentence: string, ignored: string[]): void {
  section.raw(key);
  if (section.has(key)) ignored.push(sentence);
}

/** Reads a section and then reports its unknown keys; null if there is no section. */
function finished<T>(section: ConfigSection | null, read: (section: ConfigSection) => T): T | null {
  if (section === null) return null;
  const result = read(section);
  section.finish();
  return result;
}
