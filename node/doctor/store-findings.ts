import { statfs } from "node:fs/promises";
import { resolve } from "node:path";
import { examinePostgres, type PostgresExamination } from "../../actors/store/examination.ts";
import { type EtcdExamination, examineEtcd } from "../../cluster/etcd/etcd-examination.ts";
import type { Clock } from "../../proto/clock.ts";
import type { Settings } from "../config/settings.ts";
import { userOf } from "../data-folder.ts";
import { embeddedUrl } from "../embedded-postgres.ts";
import { judgeEtcd, type KnownCluster } from "./etcd-findings.ts";
import { createReport, type Finding } from "./finding.ts";
import { judgePostgres } from "./postgres-findings.ts";

export interface StoreLookOptions {
  readonly clock: Clock;
  /** Unix milliseconds. */
  readonly wall: () => number;
}

const postgresMs = 1_800;
/** Of two. */
const etcdStepMs = 900;

/** Looks at every database and every member of etcd at once, and compares what they know of the cluster. */
export async function lookAtStores({ clock, wall }: StoreLookOptions, settings: Settings): Promise<readonly Finding[]> {
  const main = settings.databaseUrl ?? (await runningEmbedded(settings));
  const urls = [...(main === null ? [] : [main]), ...settings.databaseUrls];
  const [databases, members] = await Promise.all([
    Promise.all(
      urls.map(async (url) => {
        const examination = await examinePostgres({ url, deadlineMs: postgresMs, clock, wall });
        return { url, examination, freeBytes: await freeOf(examination) };
      }),
    ),
    Promise.all((settings.etcd ?? []).map((endpoint) => examineEtcd({ endpoint, clock, stepMs: etcdStepMs }))),
  ]);
  const cluster = main === null ? null : clusterIn(databases[0]?.examination);
  const nodes = countNodes(members, cluster, settings);
  return [
    ...(main === null ? embeddedAway() : []),
    ...databases.flatMap(({ url, ...seen }) => judgePostgres(seen, { url, settings, nodes })),
    ...judgeEtcd(members, { leaseTtlMs: settings.leaseTtlMs, cluster }),
  ];
}

/** The embedded PostgreSQL runs as long as its node does. */
async function runningEmbedded({ dataDir }: Settings): Promise<string | null> {
  if (process.platform === "win32" || (await userOf(resolve(dataDir))) === null) return null;
  return embeddedUrl(dataDir);
}

function embeddedAway(): readonly Finding[] {
  const report = createReport("postgresql");
  report.ok("embedded", "it does not run now: the node brings it");
  return report.findings;
}

/** On the disk of a server of this machine; null: it is elsewhere, or may not be looked at. */
async function freeOf(examination: PostgresExamination): Promise<number | null> {
  if (examination.kind === "failed" || !examination.facts.isLocal) return null;
  const folder = examination.facts.settings.get("data_directory");
  if (folder === undefined) return null;
  // A server in a container has folders of its own.
  return await statfs(folder).then(
    ({ bavail, bsize }) => bavail * bsize,
    () => null,
  );
}

function clusterIn(examination: PostgresExamination | undefined): KnownCluster | null {
  if (examination === undefined || examination.kind === "failed") return null;
  const id = examination.facts.meta?.get("cluster_id");
  return id === undefined ? null : { id, mark: examination.facts.meta?.get("coordinator") ?? null };
}

/** Those that etcd knows of, and the one of these settings if it is not among them. */
function countNodes(
  members: readonly EtcdExamination[],
  cluster: KnownCluster | null,
  { etcd, name }: Settings,
): number {
  if (etcd === null) return 1;
  const known = members.flatMap((member) =>
    member.kind === "answered" && cluster !== null ? (member.facts.clusters.get(cluster.id)?.nodes ?? []) : [],
  );
  return Math.max(1, new Set(name === null ? known : [...known, name]).size);
}
