import type { EngineStatus } from "../../actors/engine.ts";
import { counter, countersBy, gauge, gaugesBy, histogram, type Metric, type Scene } from "./metric.ts";

/** What becomes of datapoints. Counts begin at zero with each start of the node. */
export const dataMetrics: readonly Metric[] = [
  counter("starling_batches_total", "batches that clients sent to this node, repeats included", "batches"),
  countersBy(
    "result",
    "starling_datapoints_total",
    "their datapoints: accepted, or the code of the refusal",
    "datapoints/",
  ),
  ackSeconds(),
  histogram("starling_append_seconds", "time of a commit to the log", "append_seconds"),
  histogram("starling_flush_seconds", "time of a commit of records, histories and watermarks", "flush_seconds"),
  histogram("starling_load_seconds", "time in which records of entities were read", "load_seconds"),
  counter("starling_tasks_processed_total", "tasks that entities have processed", "task_processed"),
  counter("starling_tasks_derived_total", "tasks that hooks derived", "derived_tasks"),
  counter("starling_tasks_replayed_total", "tasks read back from the log after a shard was taken", "replayed_tasks"),
  counter("starling_entities_created_total", "entities that came to be", "record_created"),
  counter("starling_entities_removed_total", "entities that were deleted", "record_removed"),
  counter("starling_creations_refused_total", "entities that a module did not allow", "creation_refused"),
  counter("starling_repeats_total", "parts of batches that were known already", "repeats"),
  countersBy("code", "starling_parts_refused_total", "parts of batches that their shard refused", "refused/"),
  countersBy("code", "starling_parts_unrouted_total", "parts of batches that reached no owner", "router/refused/"),
  counter("starling_parts_forwarded_total", "parts of batches sent to other nodes", "peer/parts_sent"),
  counter("starling_parts_received_total", "parts of batches taken from other nodes", "peer/parts_received"),
  counter("starling_sessions_refused_total", "streams above the bound on sessions", "sessions_refused"),
  counter("starling_obligations_total", "hooks that took too long to hold the watermark", "obligations"),
  gauge("starling_obligations", "entities with such a hook now", ({ status }) => sum(status, (s) => s.obligations)),
  countersBy("kind", "starling_dead_letters_total", "dead letters written", "dead_letters/"),
  openLetters(),
  counter("starling_poisoned_hooks_total", "hooks not run because processes died of them", "poisoned_hooks"),
  counter("starling_actor_sends_total", "messages sent to actors", "actor_sends"),
  counter("starling_actor_asks_total", "messages to actors whose reply was awaited", "actor_asks"),
  counter("starling_schedule_runs_total", "runs of schedules", "schedule_runs"),
  counter("starling_schedule_failures_total", "runs of schedules that failed", "schedule_failures"),
  counter("starling_schedule_missed_total", "deadlines of schedules that passed unrun", "schedule_missed"),
  counter(
    "starling_schedule_stalls_total",
    "waits of schedules that are ahead of their node's clock",
    "schedule_stalls",
  ),
  counter("starling_obituaries_total", "deleted entities that others may link to", "obituaries_written"),
  counter("starling_links_forgotten_total", "links to deleted entities that their sources gave up", "links_forgotten"),
  counter("starling_link_keeper_failures_total", "failed looks for links to deleted entities", "link_keeper_failures"),
  counter(
    "starling_lifetimes_looked_at_total",
    "entities whose lifetime the collector looked at",
    "lifetimes_looked_at",
  ),
  counter("starling_lives_over_total", "entities deleted as their lifetime was over", "lives_over"),
  counter("starling_collector_failures_total", "failed runs of the collector", "collector_failures"),
  counter("starling_history_rows_folded_total", "rows of histories merged into pages", "history/folded_rows"),
  counter("starling_history_pages_written_total", "pages that came of it", "history/pages_written"),
  counter(
    "starling_history_conflicts_total",
    "merges begun anew, as what they read had changed",
    "history/fold_conflicts",
  ),
  counter("starling_history_pages_cleaned_total", "pages dropped because of their age", "history/cleaned_pages"),
  countersBy("work", "starling_history_failures_total", "runs of either that failed: fold, clean", "history_failures/"),
  countersBy(
    "result",
    "starling_snapshot_runs_total",
    "snapshot runs that this node ended: finished, failed",
    "snapshot_runs/",
  ),
  counter("starling_snapshot_runs_skipped_total", "runs that fell due while another went on", "snapshot_runs_skipped"),
  histogram("starling_snapshot_run_seconds", "time of the runs that this node ended", "snapshot_run_seconds"),
  counter("starling_snapshot_entities_total", "entities whose values were computed for snapshots", "snapshot_entities"),
  counter("starling_snapshot_components_total", "components of linked entities among them", "snapshot_components"),
  counter(
    "starling_snapshot_images_total",
    "entities kept as they were at a mark, since they changed before their turn",
    "snapshot_images",
  ),
  counter("starling_snapshot_refused_total", "snapshots that PostgreSQL cannot store", "snapshot_refused"),
  counter("starling_snapshot_tasks_total", "tasks of snapshot hooks that became durable", "snapshot_tasks_sent"),
  counter("starling_snapshot_tasks_lost_total", "tasks of snapshot hooks that nobody takes", "snapshot_tasks_lost"),
  counter("starling_snapshot_failures_total", "parts of runs that failed and were tried again", "snapshot_failures"),
  counter("starling_snapshot_rows_cleaned_total", "snapshots dropped because of their age", "snapshot_cleaned"),
  gauge("starling_lag_entries", "tasks that wait for their processing", ({ status }) =>
    sum(status, (s) => s.lagEntries),
  ),
  gauge("starling_lag_bytes", "their bytes", ({ status }) => sum(status, (s) => s.lagBytes)),
  gauge("starling_lag_shard_max_entries", "tasks that wait in the shard with most of them", ({ status }) =>
    max(status, (s) => s.lagEntries),
  ),
  gauge("starling_undelivered", "derived tasks on their way to other shards", ({ status }) =>
    sum(status, (s) => s.undelivered),
  ),
  gaugesBy(
    "queue",
    "starling_queue_bytes",
    "what waits in memory: in the node, in the fullest shard; and what is resident",
    (scene) => queues(scene).used,
  ),
  gaugesBy("queue", "starling_queue_bound_bytes", "the bound on each of these", (scene) => queues(scene).bounds),
  gauge("starling_entities_resident", "entities in memory", ({ status }) => sum(status, (s) => s.residentEntities)),
  gauge("starling_entities_dirty", "entities newer than in PostgreSQL", ({ status }) =>
    sum(status, (s) => s.dirtyEntities),
  ),
];

function ackSeconds(): Metric {
  const levels = ["durable", "processed"] as const;
  return {
    name: "starling_ack_seconds",
    help: "time from a batch's arrival to its acknowledgement",
    type: "histogram",
    labels: ["level"],
    read: ({ counters }) =>
      levels.map((level) => ({ labels: { level }, value: counters.histogram(`ack_seconds/${level}`) })),
  };
}

function openLetters(): Metric {
  return {
    name: "starling_dead_letters",
    help: "open ones of this node's shards, as last counted; missing: not known",
    type: "gauge",
    labels: [],
    read: ({ node, status, openLetters }) => {
      const counts = node === null ? null : openLetters(node.engine);
      return counts === null ? [] : [{ labels: {}, value: sum(status, ({ shard }) => counts.get(shard) ?? 0) }];
    },
  };
}

function queues({ status, settings }: Scene) {
  const waiting = (shard: Shard): number => shard.lagBytes + shard.outboxBytes;
  return {
    used: { node: sum(status, waiting), shard: max(status, waiting), resident: sum(status, (s) => s.residentBytes) },
    bounds: { node: settings.backlogMaxBytes, shard: settings.lagMaxBytes, resident: settings.residentMaxBytes },
  };
}

type Shard = EngineStatus["shards"][number];

function sum({ shards }: EngineStatus, value: (shard: Shard) => number): number {
  return shards.reduce((total, shard) => total + value(shard), 0);
}

function max({ shards }: EngineStatus, value: (shard: Shard) => number): number {
  return shards.reduce((most, shard) => Math.max(most, value(shard)), 0);
}
