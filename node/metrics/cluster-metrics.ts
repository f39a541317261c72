import type { NodeRecord } from "../../cluster/membership/membership.ts";
import { groupOf, type ShardId } from "../../proto/ids.ts";
import { counter, countersBy, gauge, gaugesBy, histogram, type Metric, type Scene } from "./metric.ts";

/** Where the shards are, and how the node reaches the others, etcd and PostgreSQL. */
export const clusterMetrics: readonly Metric[] = [
  gaugesBy("group", "starling_shards", "shards that this node owns", ({ status }) =>
    countBy(status.shards, ({ shard }: { shard: ShardId }) => groupOf(shard), { entity: 0, system: 0 }),
  ),
  counter("starling_shards_acquired_total", "shards taken: each is a change of an epoch", "shards_acquired"),
  counter("starling_shards_given_up_total", "shards handed over in order", "shards_given_up"),
  counter("starling_shards_dropped_total", "shards found to be another node's", "shards_dropped"),
  counter(
    "starling_shards_kept_back_total",
    "shards whose flush PostgreSQL refused: nothing more of them is flushed here",
    "shards_kept_back",
  ),
  counter("starling_fenced_commits_total", "commits refused because a shard was taken over", "fenced_commits"),
  histogram(
    "starling_hand_off_pause_seconds",
    "time in which a shard on its way took nothing",
    "hand_off_pause_seconds",
  ),
  counter("starling_hooks_aborted_total", "hooks that ran too long for the hand-off of their shard", "hooks_given_up"),
  gaugesBy("state", "starling_nodes", "nodes of the cluster as this one knows them", nodesByState),
  gaugesBy("path", "starling_links", "the other nodes by the way to them", linksByPath),
  gaugesBy(
    "peer",
    "starling_link_round_trip_seconds",
    "time of a heartbeat to another node and back, by its name",
    roundTrips,
  ),
  counter("starling_links_opened_total", "links to other nodes that came up", "links_opened"),
  counter("starling_links_lost_total", "links to other nodes that went down", "links_lost"),
  counter("starling_link_messages_total", "messages sent over links", "link_messages_sent"),
  counter("starling_link_credits_exhausted_total", "messages that a peer had no room for", "link_credits_exhausted"),
  counter("starling_suspicions_total", "times this node said that another one does not answer", "suspicions"),
  counter("starling_expulsions_total", "times the others gave this node up", "expulsions"),
  gauge("starling_coordinator_connected", "whether etcd answered lately", ({ node }) =>
    Number(node?.membership.connected ?? false),
  ),
  gauge("starling_serving", "whether this node serves", ({ status }) => Number(status.problem === null)),
  countersBy(
    "class",
    "starling_database_errors_total",
    "statements that failed, by PostgreSQL's class of errors or the system's code",
    "database_errors/",
  ),
];

function nodesByState({ node }: Scene): Record<string, number> {
  const none = { joining: 0, serving: 0, ailing: 0, leaving: 0 };
  return countBy(node?.membership.view.nodes ?? [], ({ state }) => state, none);
}

function linksByPath({ node }: Scene): Record<string, number> {
  return countBy(othersOf(node), ({ id }) => node?.links.pathOf(id) ?? "down", { direct: 0, relayed: 0, down: 0 });
}

function roundTrips({ node }: Scene): Record<string, number> {
  const known = othersOf(node).flatMap(({ id, name }): [string, number][] => {
    const ms = node?.links.roundTripMsOf(id) ?? null;
    return ms === null ? [] : [[name, ms / 1000]];
  });
  return Object.fromEntries(known);
}

function othersOf(node: Scene["node"]): readonly NodeRecord[] {
  const { self, view } = node?.membership ?? {};
  return view?.nodes.filter(({ id }) => id !== self?.id) ?? [];
}

function countBy<T>(
  items: readonly T[],
  key: (item: T) => string,
  none: Record<string, number>,
): Record<string, number> {
  const counts = { ...none };
  for (const item of items) counts[key(item)] = (counts[key(item)] ?? 0) + 1;
  return counts;
}
