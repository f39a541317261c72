import type { ClusterNodeStatus, ClusterStatus, Dependency } from "../../proto/cluster-status.ts";
import { type Colour, formatCount, formatTable, type Output, shorten } from "./output.ts";
import { formatDuration } from "./progress.ts";

/** Whether everybody serves, or has a good reason not to. */
export function isWell({ nodes, unowned, etcd, database }: ClusterStatus): boolean {
  if (unowned.length > 0 || database.state === "away" || etcd?.state === "away") return false;
  return nodes.every((node) => isGone(node) || (!troubled.has(node.state) && node.problem === ""));
}

const troubled: ReadonlySet<string> = new Set(["silent", "ailing"]);

/** A cluster's status for people, line by line. */
export function linesOfStatus(status: ClusterStatus, paint: Output["paint"], withShards: boolean): string[] {
  const { nodes, shards, problems, etcd, database, epochMin, epochMax, versions } = status;
  const there = nodes.filter((node) => !isGone(node)).length;
  const epochs = epochMin === epochMax ? `epoch ${epochMax}` : `epochs ${epochMin} to ${epochMax}`;
  const lines = [
    `${paint("bold", `cluster ${status.clusterId}`)}  asked ${status.asked}`,
    `${there} ${there === 1 ? "node" : "nodes"}, version ${Object.keys(versions).sort().join(" and ")}, ${shards.length} shards, ${epochs}`,
    `etcd ${etcd === undefined ? "none: a cluster of one" : dependencyText(etcd, paint)}, PostgreSQL ${dependencyText(database, paint)}`,
    "",
    ...tableOfNodes(nodes, paint),
    "",
    ...nodes.filter(isGone).map(({ name, problem }) => paint("dim", `${name} is gone: ${shorten(problem, 200)}`)),
  ];
  if (problems.length === 0) lines.push(paint("green", "all is well"));
  for (const problem of problems) lines.push(paint(isWell(status) ? "yellow" : "red", `! ${shorten(problem, 400)}`));
  return withShards ? [...lines, "", ...tableOfShards(status, paint)] : lines;
}

function dependencyText({ state, silentMs }: Dependency, paint: Output["paint"]): string {
  if (state === "answers") return paint("green", "answers");
  return paint("red", silentMs > 0 ? `away for ${formatDuration(silentMs)}` : "away");
}

type Cell = readonly [title: string, cell: (node: ClusterNodeStatus) => string];

/** What a node says of itself, so not known of one that is silent. */
const ownWords: readonly Cell[] = [
  ["lag", ({ lag }) => formatCount(lag)],
  ["queued", ({ queueBytes }) => formatBytes(queueBytes)],
  ["moving", ({ handOffs }) => formatCount(handOffs)],
  ["moved", ({ handOffsDone }) => formatCount(handOffsDone)],
  ["obligations", ({ obligations }) => formatCount(obligations)],
];

function tableOfNodes(nodes: readonly ClusterNodeStatus[], paint: Output["paint"]): string[] {
  const groups = [...new Set(nodes.flatMap(({ weights }) => Object.keys(weights)))];
  const columns: readonly Cell[] = [
    ...groups.map((group): Cell => [group, ({ shards }) => formatCount(shards[group] ?? 0)]),
    ["weight", ({ weights }) => weightText(weights)],
    ...ownWords.map(([title, cell]): Cell => [title, (node) => (node.state === "silent" ? "?" : cell(node))]),
    ["letters", ({ deadLetters }) => (deadLetters === undefined ? "?" : formatCount(deadLetters))],
    ["up", ({ state, uptimeS }) => (state === "silent" ? "?" : formatDuration(uptimeS * 1000))],
  ];
  const rows = nodes.map((node) => [
    ...[node.name, node.state, isGone(node) ? "-" : node.address],
    ...columns.map(([, cell]) => (isGone(node) ? "-" : cell(node))),
  ]);
  const titles = ["node", "state", "address", ...columns.map(([title]) => title)];
  const [title = "", ...lines] = formatTable(titles, rows);
  return [paint("bold", title), ...lines.map((line, index) => colourState(line, nodes[index]?.state ?? "", paint))];
}

function isGone({ state }: ClusterNodeStatus): boolean {
  return state === "gone";
}

const colours: Readonly<Record<string, Colour>> = {
  ...{ serving: "green", silent: "red", ailing: "red", gone: "dim" },
  ...{ joining: "yellow", leaving: "yellow", draining: "yellow", drained: "yellow" },
};

/** Only the word is coloured: the columns stand as they are. */
function colourState(line: string, state: string, paint: Output["paint"]): string {
  const colour = colours[state];
  return colour === undefined ? line : line.replace(` ${state} `, (found) => paint(colour, found));
}

function weightText(weights: Readonly<Record<string, number>>): string {
  const values = [...new Set(Object.values(weights))];
  return values.length === 1 ? String(values[0]) : Object.values(weights).join("/");
}

function tableOfShards({ shards }: ClusterStatus, paint: Output["paint"]): string[] {
  const header = ["shard", "group", "owner", "state", "pinned to", "epoch", "last seq", "lag", "obligations"];
  const rows = shards.map((shard) => [
    String(shard.shard),
    shard.group,
    shard.owner === "" ? "-" : shard.owner,
    shard.state,
    shard.pinnedTo === "" ? "-" : shard.pinnedTo,
    String(shard.epoch),
    formatCount(shard.lastSeq),
    formatCount(shard.lag),
    formatCount(shard.obligations),
  ]);
  const [title = "", ...lines] = formatTable(header, rows);
  return [paint("bold", title), ...lines];
}

/** 0 B, 3.4 KiB, 12 MiB. */
export function formatBytes(bytes: number): string {
  let amount = bytes;
  for (const unit of ["B", "KiB", "MiB"]) {
    if (amount < 1024) return `${amount < 10 && unit !== "B" ? amount.toFixed(1) : Math.round(amount)} ${unit}`;
    amount /= 1024;
  }
  return `${amount.toFixed(1)} GiB`;
}
