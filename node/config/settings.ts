import { z } from "zod";
import { parseDuration } from "../../modules/duration.ts";

const KiB = 1024;
const MiB = 1024 * KiB;
const GiB = 1024 * MiB;
const countMax = 1_000_000_000;
const shardsMax = 4096;
const namePattern = /^[\w.-]{1,100}$/;
const nameForms = "letters, digits, `.`, `_` and `-`, at most 100";

/**
 * Starling's own settings and their bounds: `starling.yml` (in snake_case), overridden by `STARLING_*` variables,
 * overridden by flags. Durations are also taken as text (`30s`), bytes as `64MiB`.
 */
export const settingsSchema = z.object({
  listen: address("127.0.0.1:4700", "address and port of gRPC"),
  httpListen: z
    .string()
    .regex(/^(?:auto|none|(?:\[[0-9a-fA-F:.]+\]|[^:\s/]+):\d{1,5})$/, "auto, none or host:port")
    .refine((value) => !(Number(value.replace(/^.*:/, "")) > 65_535), "a port up to 65535")
    .default("auto")
    .describe("metrics and health; auto: on loopback, 80 above the port of listen; none: nowhere"),
  httpTls: flag("whether they are served by TLS, with the node's certificate"),
  name: z
    .string()
    .regex(namePattern, nameForms)
    .nullable()
    .default(null)
    .describe("the node's name in the cluster, the same over restarts; none: the host's name and the port"),
  advertise: optionalAddress(
    "address at which other nodes and clients reach this one; none: the one that it listens on",
  ),
  tlsCert: path("certificate of this node, and its issuers (PEM); none: plain text"),
  tlsKey: path("key of the certificate (PEM)"),
  tlsCa: path("authorities whose certificates of nodes and clients are trusted (PEM)"),
  tlsClientAuth: z
    .enum(["optional", "required"])
    .default("optional")
    .describe("whether clients must show a certificate; nodes always do"),
  allowPlaintext: flag("whether nodes and clients may talk in plain text beyond loopback"),
  clusterName: z
    .string()
    .regex(namePattern, nameForms)
    .default("starling")
    .describe("the cluster's name in the certificates of its nodes: URI:starling://CLUSTER_NAME/node/NAME"),
  tokensFile: path("tokens of clients; none: tokens.yml in the configuration directory, if it is there"),
  dataDir: text(".starling", "directory of the embedded PostgreSQL and of everything else that stays on this machine"),
  databaseUrl: databaseUrl().nullable().default(null).describe("PostgreSQL to use; none: an embedded one"),
  databaseUrls: z.preprocess(listOf, z.array(databaseUrl()).max(64)).default([]).describe("more databases for shards"),
  etcd: z
    .preprocess(listOf, z.array(z.string().min(1)).min(1))
    .nullable()
    .default(null)
    .describe("etcd's addresses, by which nodes find each other; none: a cluster of one node"),
  leaseTtlMs: z
    .preprocess(milliseconds, z.number().int().min(2000).max(60_000))
    .default(4000)
    .describe("time after which the others give up a node that etcd no longer hears of"),
  rolling: flag("whether model and modules may differ from those of the other nodes, while these are replaced"),
  entityShards: count(256, 1, shardsMax, "shards of the entities; fixed once data are stored"),
  systemShards: count(16, 1, shardsMax, "shards of schedules and other duties; fixed once data are stored"),
  lanes: count(2, 1, 64, "commits in flight on this node, to each database"),
  appendMaxDatapoints: count(20_000, 1, countMax, "datapoints in one commit"),
  flushIntervalMs: duration(1000, "time within which changes are written, if appends leave time for it"),
  flushMaxEntities: count(1000, 1, countMax, "entities in one flush"),
  flushMaxBytes: bytes(16 * MiB, "memory of the entities in one flush, as estimated; one always fits"),
  residentMaxEntities: count(500_000, 1, countMax, "entities kept in memory"),
  residentMaxBytes: bytes(512 * MiB, "memory for entities, as estimated; above it the longest unused leave"),
  passivateAfterMs: duration(60_000, "idle time after which an entity leaves the memory"),
  lagMaxEntries: count(100_000, 1, countMax, "log entries of a shard that may wait for their processing"),
  lagMaxBytes: bytes(64 * MiB, "bytes of a shard's log that may wait for their processing"),
  backlogMaxBytes: bytes(256 * MiB, "memory on this node for what waits for its processing, derived tasks included"),
  creditBatches: count(8, 1, 10_000, "batches that a sender may have in flight"),
  creditBytes: bytes(16 * MiB, "bytes that a sender may have in flight"),
  sessionMaxCount: count(10_000, 1, countMax, "sessions that may be open at once on this node"),
  hookTimeoutMs: duration(30_000, "bound on one attempt of a hook"),
  hookRetries: count(2, 0, 100, "further attempts after a hook failed"),
  hookConcurrency: count(16, 1, 10_000, "runs of one asynchronous hook at once"),
  obligationAfterMs: duration(5000, "time after which a running hook no longer holds the watermark"),
  obligationAfterSeqs: count(
    10_000,
    1,
    countMax,
    "log entries after which a running hook no longer holds the watermark",
  ),
  chainMaxDepth: count(16, 1, 1000, "how deep derived tasks may derive tasks"),
  hookTasksMax: count(1000, 1, 100_000, "tasks that one run of a hook may return"),
  hookTasksMaxBytes: bytes(4 * MiB, "bytes of the tasks that one run of a hook may return"),
  snapshotConcurrency: count(16, 1, 1000, "shards whose snapshots a node computes at once"),
  snapshotShare: count(
    25,
    1,
    100,
    "percent of the time that snapshot runs take of a node that writes datapoints all the time",
  ),
  snapshotPageMax: count(125, 1, 100_000, "entities of a shard whose snapshots are computed and written together"),
  snapshotPageBytes: bytes(MiB, "bytes of the records that are read for that, roughly"),
  snapshotJoinBytes: bytes(64 * MiB, "bytes of linked entities' values above which they are computed in pieces"),
  snapshotStallMs: duration(600_000, "how long a snapshot run may stand still before it fails"),
  storeTimeoutMs: duration(30_000, "bound on one statement in PostgreSQL"),
  logLevel: z
    .enum(["trace", "debug", "info", "warn", "error", "fatal", "silent"])
    .default("info")
    .describe("how much is logged"),
  trace: z
    .string()
    .regex(/^(?:none|file:.+|otlp:https?:\/\/.+)$/, "none, file:PATH or otlp:http://host:port/v1/traces")
    .default("none")
    .describe("where traces go: none, file:PATH (lines of JSON) or otlp:URL (OpenTelemetry over HTTP)"),
  traceRatio: z
    .preprocess(
      (input) => (typeof input === "string" && input.trim() !== "" ? Number(input) : input),
      z.number().min(0).max(1),
    )
    .default(0.01)
    .describe("share of batches that are traced, of those whose sender does not say"),
  retentionDays: count(7, 1, 36_500, "days that raw datapoints are kept"),
});

export type Settings = Readonly<z.output<typeof settingsSchema>>;
export type SettingName = keyof Settings;

/** A setting as help and README show it. */
export interface SettingHelp {
  readonly name: SettingName;
  readonly yamlKey: string;
  readonly variable: string;
  readonly flag: string;
  readonly description: string;
  readonly fallback: Settings[SettingName];
}

/** Every setting in order, with its names, its default and one line of description. */
export function settingHelp(): SettingHelp[] {
  const defaults = settingsSchema.parse({});
  return settingNames.map((name) => ({
    name,
    yamlKey: snakeCase(name),
    variable: `STARLING_${snakeCase(name).toUpperCase()}`,
    flag: `--${snakeCase(name).replaceAll("_", "-")}`,
    description: settingsSchema.shape[name].description ?? "",
    fallback: defaults[name],
  }));
}

export const settingNames = Object.keys(settingsSchema.shape) as readonly SettingName[];

/** `dataDir` as `data_dir`. */
export function snakeCase(name: string): string {
  return name.replace(/[A-Z]/g, (capital) => `_${capital.toLowerCase()}`);
}

const byteUnits: Readonly<Record<string, number>> = { b: 1, kib: KiB, mib: MiB, gib: GiB, kb: 1e3, mb: 1e6, gb: 1e9 };

function text(fallback: string, description: string) {
  return z.string().min(1).default(fallback).describe(description);
}

function path(description: string) {
  return z.string().min(1).nullable().default(null).describe(description);
}

function flag(description: string) {
  return z
    .preprocess((input) => (input === "true" ? true : input === "false" ? false : input), z.boolean())
    .default(false)
    .describe(description);
}

function address(fallback: string, description: string) {
  return addressText().default(fallback).describe(description);
}

function optionalAddress(description: string) {
  return addressText().nullable().default(null).describe(description);
}

function addressText() {
  return z
    .string()
    .regex(/^(?:\[[0-9a-fA-F:.]+\]|[^:\s/]+):\d{1,5}$/, "host:port")
    .refine((value) => Number(value.replace(/^.*:/, "")) < 65_536, "a port up to 65535");
}

function databaseUrl() {
  return z.string().regex(/^postgres(?:ql)?:\/\//, "postgres://user:password@host:port/database");
}

function count(fallback: number, min: number, max: number, description: string) {
  return z.preprocess(numeric, z.number().int().min(min).max(max)).default(fallback).describe(description);
}

function bytes(fallback: number, description: string) {
  return z
    .preprocess(
      byteCount,
      z
        .number()
        .int()
        .min(KiB)
        .max(1024 * GiB),
    )
    .default(fallback)
    .describe(description);
}

function duration(fallback: number, description: string) {
  return z.preprocess(milliseconds, z.number().int().min(1).max(86_400_000)).default(fallback).describe(description);
}

function numeric(input: unknown): unknown {
  return typeof input === "string" && /^\s*\d+\s*$/.test(input) ? Number(input) : input;
}

function byteCount(input: unknown): unknown {
  const [, digits, unit = ""] = (typeof input === "string" && /^\s*(\d+)\s*([kmg]?i?b)\s*$/i.exec(input)) || [];
  const factor = byteUnits[unit.toLowerCase()];
  return digits === undefined || factor === undefined ? numeric(input) : Number(digits) * factor;
}

/** A bare number is milliseconds, as the name of the setting says; text with a unit is a duration. */
function milliseconds(input: unknown): unknown {
  const value = numeric(input);
  if (typeof value !== "string") return value;
  const short = /^\s*(\d+)\s*ms\s*$/.exec(value);
  if (short) return Number(short[1]);
  try {
    return parseDuration(value);
  } catch {
    // The schema then says that this is no number.
    return value;
  }
}

function listOf(input: unknown): unknown {
  if (typeof input !== "string") return input;
  return input
    .split(",")
    .map((part) => part.trim())
    .filter((part) => part !== "");
}
