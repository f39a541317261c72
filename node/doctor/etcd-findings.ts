import type { EtcdExamination, EtcdFacts } from "../../cluster/etcd/etcd-examination.ts";
import { createReport, type Finding, formatBytes, type Report } from "./finding.ts";

/** What the members of an etcd are judged by. */
export interface EtcdExpectation {
  readonly leaseTtlMs: number;
  /** What the database says of the cluster; null: it does not answer, or holds no cluster yet. */
  readonly cluster: KnownCluster | null;
}

export interface KnownCluster {
  readonly id: string;
  /** Of the etcd that its nodes meet at; null: they never met at one. */
  readonly mark: string | null;
}

const versionMin = [3, 4] as const;
/** A member above this share of its quota is told of in time. */
const fullShare = 0.8;
const quotaDefaultBytes = 2 * 1024 ** 3;

/** Judges what a look at every member showed. */
export function judgeEtcd(
  members: readonly EtcdExamination[],
  { leaseTtlMs, cluster }: EtcdExpectation,
): readonly Finding[] {
  const etcdIds = new Set(members.flatMap((member) => (member.kind === "answered" ? [member.facts.clusterId] : [])));
  return members.flatMap((member) => {
    const report = createReport(`etcd ${member.endpoint}`);
    if (member.kind === "failed") {
      judgeFailure(report, member, members);
      return report.findings;
    }
    const { facts } = member;
    judgeMember(report, facts, leaseTtlMs);
    judgeStore(report, facts);
    if (etcdIds.size > 1) {
      const found = `cluster id ${facts.clusterId}; other endpoints: ${[...etcdIds].filter((id) => id !== facts.clusterId).join(", ")}`;
      const remedy = "name only members of one etcd in `etcd`";
      report.problem("same etcd", { found, expected: "the same cluster id at all endpoints", remedy });
    }
    if (cluster !== null) judgeMark(report, facts, cluster);
    return report.findings;
  });
}

function judgeFailure(
  report: Report,
  { error }: Extract<EtcdExamination, { kind: "failed" }>,
  members: readonly EtcdExamination[],
): void {
  const answered = members.filter(({ kind }) => kind === "answered").length;
  const serves = answered * 2 > members.length;
  const effect = serves ? "the others serve" : "nodes that run serve on, but none can join, leave or be given up";
  const silent = /did not answer/.test(error.message);
  const complaint = {
    found: `${error.message}; ${effect}`,
    expected: "a member that answers",
    remedy: silent
      ? "is it frozen, cut off or overloaded? Look at its log, its disk and the way there"
      : "start it, or correct the address in `etcd`; look at its log",
  };
  if (serves) report.warning("reachable", complaint);
  else report.problem("reachable", complaint);
}

function judgeMember(report: Report, facts: EtcdFacts, leaseTtlMs: number): void {
  const { version, hasLeader, isLearner, complaints, readMs } = facts;
  const [major = 0, minor = 0] = version.split(".").map(Number);
  const expected = `${versionMin.join(".")} or newer`;
  if (major > versionMin[0] || (major === versionMin[0] && minor >= versionMin[1])) report.ok("version", version);
  else report.problem("version", { found: version, expected, remedy: "upgrade etcd, one minor version after another" });
  if (!hasLeader) {
    const remedy = "start the other members: more than half of them have to run and reach each other";
    report.problem("leader", { found: "none", expected: "a leader", remedy });
  }
  if (isLearner) {
    const remedy = "promote it (etcdctl member promote), or take it out of `etcd`";
    report.problem("learner", { found: "the member is a learner", expected: "a member that votes", remedy });
  }
  for (const found of complaints) {
    report.warning("complaints", { found, expected: "none", remedy: "look at the log of etcd" });
  }
  const bound = leaseTtlMs / 10;
  if (readMs <= bound) return report.ok("latency", `a read took ${readMs} ms`);
  report.warning("latency", {
    found: `a read took ${readMs} ms`,
    expected: `at most a tenth of lease_ttl_ms, ${bound} ms`,
    remedy: "give etcd a faster disk or network, or raise `lease_ttl_ms` on all nodes",
  });
}

function judgeStore(report: Report, { alarms, storeBytes, quotaBytes }: EtcdFacts): void {
  const limit = quotaBytes ?? quotaDefaultBytes;
  const found = `${formatBytes(storeBytes)} of ${quotaBytes === null ? "a quota of usually " : ""}${formatBytes(limit)}`;
  const shrink = "compact and defragment it (etcdctl compact, etcdctl defrag)";
  if (alarms.includes("nospace")) {
    const remedy = `${shrink}, then etcdctl alarm disarm; raise --quota-backend-bytes if it is too small`;
    report.problem("store", { found: `alarm NOSPACE: ${found}`, expected: "room: etcd takes no writes now", remedy });
  } else if (storeBytes > limit * fullShare) {
    const remedy = `${shrink}, or raise --quota-backend-bytes`;
    report.warning("store", { found, expected: `at most ${formatBytes(limit * fullShare)}`, remedy });
  } else report.ok("store", found);
  if (alarms.some((alarm) => alarm !== "nospace")) {
    const remedy = "find the member that differs (etcdctl endpoint hashkv), and replace it";
    report.problem("store", { found: "alarm CORRUPT", expected: "members that agree", remedy });
  }
}

/** See the mark in `cluster/guarded-coordinator.ts`: an etcd that lost its data is not believed. */
function judgeMark(report: Report, { clusters }: EtcdFacts, cluster: KnownCluster): void {
  const here = clusters.get(cluster.id);
  const mark = here?.mark ?? null;
  const nodes = here?.nodes ?? [];
  if (cluster.mark === null) return report.ok("cluster", "none yet: the first node of the cluster makes it");
  if (mark === cluster.mark) {
    const names = nodes.length === 0 ? "no node" : `nodes ${[...nodes].sort().join(", ")}`;
    return report.ok("cluster", `${names} of cluster ${cluster.id}`);
  }
  report.problem("cluster", {
    found: mark === null ? "nothing of this cluster: it was emptied, or it is another etcd" : "another mark",
    expected: `the etcd that cluster ${cluster.id} was created with`,
    remedy: "correct `etcd`, or restore its data; if this is to be the one from now on: starling cluster adopt DIR",
  });
}
