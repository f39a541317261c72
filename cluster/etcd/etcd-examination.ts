import type { Clock } from "../../proto/clock.ts";
import { AlarmType, Maintenance } from "../../proto/gen/etcd_pb.ts";
import { type StarlingError, toStarlingError } from "../../proto/starling-error.ts";
import type { KeyValue } from "../coordinator.ts";
import { openEtcd } from "./etcd.ts";
import { EtcdConnection } from "./etcd-connection.ts";

/** What a look at one member of etcd showed: nothing is changed there. */
export type EtcdExamination =
  | { readonly kind: "answered"; readonly endpoint: string; readonly facts: EtcdFacts }
  | { readonly kind: "failed"; readonly endpoint: string; readonly error: StarlingError };

export interface EtcdFacts {
  readonly version: string;
  /** Of etcd itself, the same on all its members. */
  readonly clusterId: string;
  readonly hasLeader: boolean;
  /** A member that does not vote yet, and serves no reads. */
  readonly isLearner: boolean;
  readonly storeBytes: number;
  /** Null: this version does not tell. */
  readonly quotaBytes: number | null;
  /** Of any member. */
  readonly alarms: readonly ("nospace" | "corrupt" | "unknown")[];
  /** What the member itself complains of. */
  readonly complaints: readonly string[];
  /** Of a read that needs a majority of the members. */
  readonly readMs: number;
  /** Starling's clusters that meet there, by their ids. */
  readonly clusters: ReadonlyMap<string, { readonly mark: string | null; readonly nodes: readonly string[] }>;
}

export interface EtcdExaminationOptions {
  readonly endpoint: string;
  readonly clock: Clock;
  /** Bounds each of the two steps. */
  readonly stepMs: number;
}

const root = "/starling/";

/** Looks at one member. Never raises: what failed is part of the answer. */
export async function examineEtcd({ endpoint, clock, stepMs }: EtcdExaminationOptions): Promise<EtcdExamination> {
  try {
    const options = { endpoints: [endpoint], clock, timeoutMs: stepMs, isPatient: false };
    const connection = new EtcdConnection(options);
    const etcd = openEtcd(options);
    try {
      const [status, { alarms }] = await Promise.all([
        connection.ask(Maintenance.method.status, {}),
        connection.ask(Maintenance.method.alarm, {}),
        etcd.identity(), // so that connecting does not count in the time of the read
      ]);
      const startMs = clock.now();
      const { entries } = await etcd.list(root);
      const readMs = Math.round(clock.now() - startMs);
      const { version, leader, isLearner, dbSize, dbSizeQuota, errors, header } = status;
      const facts: EtcdFacts = {
        ...{ version, isLearner, readMs, hasLeader: leader !== 0n, complaints: errors },
        clusterId: (header?.clusterId ?? 0n).toString(),
        storeBytes: Number(dbSize),
        quotaBytes: dbSizeQuota === 0n ? null : Number(dbSizeQuota),
        alarms: alarms.map(({ alarm }) => alarmNames[alarm] ?? "unknown"),
        clusters: clustersIn(entries),
      };
      return { kind: "answered", endpoint, facts };
    } finally {
      connection.close();
      await etcd.close();
    }
  } catch (error) {
    return { kind: "failed", endpoint, error: toStarlingError(error, "UNAVAILABLE") };
  }
}

const alarmNames: Partial<Record<AlarmType, "nospace" | "corrupt">> = {
  [AlarmType.NOSPACE]: "nospace",
  [AlarmType.CORRUPT]: "corrupt",
};

function clustersIn(entries: readonly KeyValue[]): EtcdFacts["clusters"] {
  const clusters = new Map<string, { mark: string | null; nodes: string[] }>();
  for (const { key, value } of entries) {
    const [id = "", kind, name = ""] = key.slice(root.length).split("/");
    const cluster = clusters.get(id) ?? { mark: null, nodes: [] };
    clusters.set(id, cluster);
    if (kind === "mark") cluster.mark = value;
    else if (kind === "node") cluster.nodes.push(decodeURIComponent(name));
  }
  return clusters;
}
