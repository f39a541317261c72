import type { MembershipView, NodeRecord } from "../cluster/membership/membership.ts";
import type { Ownership } from "../cluster/owner-table.ts";
import type { ClusterNodeStatus, ClusterShardStatus, ClusterStatus } from "../proto/cluster-status.ts";
import { groupOf, type NodeId, type ShardGroup, type ShardId } from "../proto/ids.ts";
import type { NodeReport, ShardReport } from "./node-report.ts";

/** What is known of a cluster when everybody was asked. */
export interface ClusterFacts {
  readonly clusterId: string;
  /** The node that asked. */
  readonly asked: NodeRecord;
  readonly view: MembershipView;
  /** Every shard of the cluster. */
  readonly shards: readonly ShardId[];
  readonly ownerOf: (shard: ShardId) => Ownership | undefined;
  /** What each node answered, or why it did not. */
  readonly answers: ReadonlyMap<NodeId, NodeReport | string>;
  /** Open dead letters by shard; null: PostgreSQL did not tell. */
  readonly deadLetters: ReadonlyMap<ShardId, number> | null;
  /** Whether etcd answered the asked node; null: the cluster has none. */
  readonly etcd: "answers" | "away" | null;
}

/** Silence of etcd and PostgreSQL that is no trouble yet, as seldom as an idle node asks them. */
const etcdSilentMaxMs = 4_000;
const databaseSilentMaxMs = 2_500;

/** Adds up what a cluster says of itself. Pure. */
export function summarizeCluster(facts: ClusterFacts): ClusterStatus {
  const { view, asked, answers, deadLetters } = facts;
  const shards = facts.shards.map((shard) => shardStatus(facts, shard));
  const nodes = [...view.nodes.map((node) => nodeStatus(facts, node, shards)), ...goneNodes(view)];
  const unowned = shards.filter(({ state }) => state === "unowned").map(({ shard }) => shard);
  const epochs = shards.map(({ epoch }) => epoch).filter((epoch) => epoch > 0);
  const own = answers.get(asked.id);
  const etcdMs = typeof own === "object" ? (own.etcdSilentMs ?? 0) : 0;
  const databaseMs = typeof own === "object" ? own.databaseSilentMs : 0;
  const etcd = facts.etcd === null ? undefined : dependency(facts.etcd === "away", etcdMs);
  const database = dependency(deadLetters === null || databaseMs > databaseSilentMaxMs, databaseMs);
  const letters = deadLetters === null ? undefined : [...deadLetters.values()].reduce((sum, count) => sum + count, 0);
  const status: Omit<ClusterStatus, "problems"> = {
    ...{ clusterId: facts.clusterId, asked: asked.name, nodes, shards, unowned, etcd, database },
    epochMin: epochs.length === 0 ? 0 : Math.min(...epochs),
    epochMax: Math.max(0, ...epochs),
    versions: countBy(view.nodes, ({ version }) => version),
    models: countBy(view.nodes, ({ modelHash }) => modelHash),
    ...(letters !== undefined && { deadLetters: letters }),
  };
  return { ...status, problems: findProblems(status, answers) };
}

function dependency(isAway: boolean, silentMs: number) {
  return { state: isAway ? "away" : "answers", silentMs: isAway ? Math.round(silentMs) : 0 } as const;
}

function shardStatus({ view, ownerOf, answers }: ClusterFacts, shard: ShardId): ClusterShardStatus {
  const known = ownerOf(shard);
  const owner = view.nodes.find(({ id }) => id === known?.owner);
  const answer = owner === undefined ? undefined : answers.get(owner.id);
  const report = typeof answer === "object" ? answer.shards.find((each) => each.shard === shard) : undefined;
  return {
    ...{ shard, group: groupOf(shard), owner: owner?.name ?? "" },
    epoch: report?.epoch ?? known?.epoch ?? 0,
    state: stateOf(shard, owner, answer, report),
    pinnedTo: view.pins.get(shard) ?? "",
    lastSeq: report?.lastSeq ?? 0,
    watermark: report?.watermark ?? 0,
    lag: report?.lagEntries ?? 0,
    obligations: report?.obligations ?? 0,
    undelivered: report?.undelivered ?? 0,
  };
}

function stateOf(
  shard: ShardId,
  owner: NodeRecord | undefined,
  answer: NodeReport | string | undefined,
  report: ShardReport | undefined,
): string {
  if (owner === undefined) return "unowned";
  if (typeof answer !== "object") return "unknown";
  if (report !== undefined) return report.handOff === null ? "owned" : "handing off";
  return answer.arriving.includes(shard) ? "arriving" : "unowned";
}

function nodeStatus(facts: ClusterFacts, node: NodeRecord, shards: readonly ClusterShardStatus[]): ClusterNodeStatus {
  const answer = facts.answers.get(node.id) ?? "it was not asked";
  const report = typeof answer === "object" ? answer : null;
  const owned = shards.filter(({ owner }) => owner === node.name);
  const weights = weightsOf(facts, node.name);
  const problem = report === null ? { text: String(answer) } : report.problem;
  const sum = (pick: (shard: ShardReport) => number): number =>
    (report?.shards ?? []).reduce((total, shard) => total + pick(shard), 0);
  return {
    ...{ name: node.name, node: node.id, address: node.address, version: node.version, modelHash: node.modelHash },
    state: report === null ? "silent" : drainState(node.state, weights, owned.length),
    problem: problem?.text ?? "",
    ...(problem !== null && "forMs" in problem && { problemMs: Math.round(problem.forMs) }),
    uptimeS: report?.uptimeS ?? 0,
    shards: countBy(owned, ({ group }) => group),
    weights,
    lag: sum(({ lagEntries }) => lagEntries),
    queueBytes: report?.queueBytes ?? 0,
    queueMaxBytes: report?.queueMaxBytes ?? 0,
    residentEntities: sum(({ residentEntities }) => residentEntities),
    handOffs: (report?.shards ?? []).filter(({ handOff }) => handOff !== null).length,
    handOffsDone: report?.handOffsDone ?? 0,
    obligations: sum(({ obligations }) => obligations),
    undelivered: sum(({ undelivered }) => undelivered),
    ...lettersOf(facts.deadLetters, owned),
  };
}

function lettersOf(deadLetters: ClusterFacts["deadLetters"], owned: readonly ClusterShardStatus[]) {
  if (deadLetters === null) return {};
  const byShard: ReadonlyMap<number, number> = deadLetters;
  return { deadLetters: owned.reduce((sum, { shard }) => sum + (byShard.get(shard) ?? 0), 0) };
}

function weightsOf({ view, shards }: ClusterFacts, name: string): Record<string, number> {
  const groups: readonly ShardGroup[] = [...new Set(shards.map(groupOf))];
  return Object.fromEntries(groups.map((group) => [group, view.weights.get(group)?.get(name) ?? 1]));
}

function drainState(state: string, weights: Readonly<Record<string, number>>, owned: number): string {
  if (state !== "serving" || Object.values(weights).some((weight) => weight > 0)) return state;
  return owned > 0 ? "draining" : "drained";
}

function goneNodes({ departed }: MembershipView): ClusterNodeStatus[] {
  const nothing = {
    ...{ node: "", address: "", version: "", modelHash: "", uptimeS: 0, shards: {}, weights: {}, lag: 0 },
    ...{ queueBytes: 0, queueMaxBytes: 0, residentEntities: 0, handOffs: 0, handOffsDone: 0 },
    ...{ obligations: 0, undelivered: 0 },
  };
  return [...departed].sort().map(([name, problem]) => ({ ...nothing, name, problem, state: "gone" }));
}

function countBy<T>(items: readonly T[], keyOf: (item: T) => string): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const item of items) counts[keyOf(item)] = (counts[keyOf(item)] ?? 0) + 1;
  return counts;
}

/** What a person has to know, worst first. */
function findProblems(status: Omit<ClusterStatus, "problems">, answers: ClusterFacts["answers"]): string[] {
  const { nodes, unowned, etcd, database, versions, models, deadLetters } = status;
  const problems: string[] = [];
  if (database.state === "away")
    problems.push(`PostgreSQL does not answer ${status.asked}${lasting(database.silentMs)}: nothing is taken in`);
  if (etcd?.state === "away")
    problems.push(`etcd does not answer ${status.asked}${lasting(etcd.silentMs)}: nodes serve on, none comes or goes`);
  for (const node of nodes) {
    if (node.state === "silent") problems.push(`${node.name} (${node.address}) did not answer: ${node.problem}`);
    else if (node.state !== "gone" && node.problem !== "")
      problems.push(`${node.name} does not serve${lasting(node.problemMs ?? 0)}: ${node.problem}`);
    problems.push(...othersTrouble(status, node, answers));
  }
  if (unowned.length > 0)
    problems.push(`nobody serves ${unowned.length} shards: ${shortList(unowned)}; \`cluster why SHARD\` says why`);
  if (Object.keys(versions).length > 1) problems.push(`nodes run different versions: ${mixOf(versions)}`);
  if (Object.keys(models).length > 1) problems.push(`nodes have different models or modules: ${mixOf(models)}`);
  if (deadLetters !== undefined && deadLetters > 0)
    problems.push(`${deadLetters} dead letters wait for a person: \`dead-letter list\``);
  return problems;
}

/** What another node cannot reach though the asked one does. */
function othersTrouble(
  { asked, etcd, database }: Omit<ClusterStatus, "problems">,
  { name, node }: ClusterNodeStatus,
  answers: ClusterFacts["answers"],
): string[] {
  const report = [...answers].find(([id]) => id === node)?.[1];
  if (name === asked || typeof report !== "object") return [];
  const problems: string[] = [];
  if (database.state === "answers" && report.databaseSilentMs > databaseSilentMaxMs)
    problems.push(`PostgreSQL does not answer ${name}${lasting(report.databaseSilentMs)}`);
  if (etcd?.state === "answers" && (report.etcdSilentMs ?? 0) > etcdSilentMaxMs)
    problems.push(`etcd does not answer ${name}${lasting(report.etcdSilentMs ?? 0)}`);
  return problems;
}

function lasting(ms: number): string {
  return ms < 1_000 ? "" : `, since ${Math.round(ms / 1_000)} s`;
}

function mixOf(counts: Readonly<Record<string, number>>): string {
  return Object.entries(counts)
    .map(([what, count]) => `${what.slice(0, 16)} on ${count}`)
    .join(", ");
}

function shortList(shards: readonly number[]): string {
  const some = shards.slice(0, 10).join(", ");
  return shards.length > 10 ? `${some}, …` : some;
}
