import { explainPlace } from "../cluster/explain-place.ts";
import type { Membership } from "../cluster/membership/membership.ts";
import type { MembershipChanged } from "../cluster/membership/membership-change.ts";
import type { OwnerTable } from "../cluster/owner-table.ts";
import { allShards } from "../cluster/shards.ts";
import { readEid } from "../modules/eid.ts";
import type { Model } from "../modules/model.ts";
import type { Clock } from "../proto/clock.ts";
import type { ClusterStatus, ShardExplanation } from "../proto/cluster-status.ts";
import { withDeadline } from "../proto/deadline.ts";
import { groupOf, type NodeId, type ShardGroup, type ShardId, shardId } from "../proto/ids.ts";
import { StarlingError, toStarlingError } from "../proto/starling-error.ts";
import type { Counters } from "./counters.ts";
import type { LocalEngine } from "./local-engine.ts";
import type { NodeReport, ShardInspection } from "./node-report.ts";
import type { InspectSubject } from "./peers/peer-ask.ts";
import type { Router } from "./peers/router.ts";
import { shardOfType } from "./shard-of-type.ts";
import type { Queries } from "./store/store.ts";
import { summarizeCluster } from "./summarize-cluster.ts";

/** What a person asks of a cluster, and decides in it, by way of any of its nodes. */
export interface ClusterControl {
  /** Asks everybody; answers within 1.5 s, whoever does not. */
  status(clusterId: string): Promise<ClusterStatus>;
  /** Where a shard, or an entity's, is and why, and what it waits for. Raises NOT_FOUND, UNKNOWN_TYPE and INVALID_EID. */
  why(subject: ShardId | { readonly type: string; readonly eid: string }): Promise<ShardExplanation>;
  /** As {@link Membership.change}; NOT_FOUND also for a shard that there is not. */
  move(shard: ShardId, name: string | null): Promise<MembershipChanged>;
  weigh(name: string, weight: number | null, groups: readonly ShardGroup[]): Promise<MembershipChanged>;
  drain(name: string): Promise<MembershipChanged>;
}

export interface ControlOptions {
  readonly local: LocalEngine;
  readonly router: Pick<Router, "inspect">;
  readonly owners: OwnerTable;
  readonly queries: Pick<Queries, "countDeadLetters">;
  readonly counters: Counters;
  readonly model: Model;
  readonly entityShards: number;
  readonly systemShards: number;
  readonly clock: Clock;
  /** When this node was started (monotonic ms). */
  readonly startedMs: number;
  /** Null: this node has not joined yet. */
  readonly joined: () => JoinedFacts | null;
  /** What keeps this node from serving, and since when (monotonic ms). */
  readonly problem: () => { readonly error: StarlingError; readonly sinceMs: number } | null;
}

export interface JoinedFacts {
  readonly membership: Membership;
  readonly alone: boolean;
  /** When PostgreSQL last answered (monotonic ms). */
  readonly databaseAtMs: number;
}

/** Everybody is asked at once, so all answers, or what is missing of them, are there by then. */
const askWithinMs = 1_500;
const waitsMax = 100;

/** The control of a cluster, seen from one node. */
export function createClusterControl(options: ControlOptions): ClusterControl {
  const { entityShards, systemShards, local, owners, router } = options;
  const shards = allShards({ entity: entityShards, system: systemShards });
  const membership = (): Membership => {
    const { membership: found } = options.joined() ?? {};
    if (found === undefined) throw new StarlingError("UNAVAILABLE", "the node is joining the cluster");
    return found;
  };
  const check = (shard: ShardId): void => {
    if (shards.includes(shard)) return;
    const group = groupOf(shard);
    const ranges = `entity/0 to entity/${entityShards - 1} and system/0 to system/${systemShards - 1}`;
    throw new StarlingError(
      "NOT_FOUND",
      `there is no shard ${group}/${shard - shardId(group, 0)}: there are ${ranges}`,
    );
  };
  const why: ClusterControl["why"] = async (subject) => {
    const entity = typeof subject === "object" ? subject : null;
    const shard = typeof subject === "object" ? shardOfEntity(options, subject) : subject;
    check(shard);
    const { view, self } = membership();
    const { owner, reason } = explainPlace(shard, { view, shards, owners });
    const asked = owner === null ? null : owner.id === self.id ? local.inspect(shard, entity) : askOwner(owner.id);
    const [found, deadLetters] = await Promise.all([settle(asked), countLetters(options)]);
    const inspection = typeof found === "string" ? null : found;
    const waits = inspection?.waits ?? [];
    return {
      ...{ shard, group: groupOf(shard), reason, owner: owner?.name ?? "", address: owner?.address ?? "" },
      epoch: inspection?.report?.epoch ?? owners.get(shard)?.epoch ?? 0,
      state: stateOf(owner !== null, found),
      lastSeq: inspection?.report?.lastSeq ?? 0,
      watermark: inspection?.report?.watermark ?? 0,
      lag: inspection?.report?.lagEntries ?? 0,
      waits: waits.slice(0, waitsMax),
      waitsMore: Math.max(0, waits.length - waitsMax),
      ...(deadLetters !== null && { deadLetters: deadLetters.get(shard) ?? 0 }),
      ...(inspection?.entity != null && { entity: inspection.entity }),
      silence: typeof found === "string" ? found : "",
    };
    async function askOwner(node: NodeId): Promise<ShardInspection | null> {
      return (await router.inspect(node, { shard, ...entity }, askWithinMs)) as ShardInspection | null;
    }
  };
  return {
    status: async (clusterId) => {
      const { view, self } = membership();
      const [deadLetters, etcd, ...answers] = await Promise.all([
        countLetters(options),
        lookAtEtcd(options),
        ...view.nodes.map(async ({ id }): Promise<[NodeId, NodeReport | string]> => {
          return [id, await settle(id === self.id ? reportSelf(options) : askNode(id))];
        }),
      ]);
      const facts = { clusterId, asked: self, view, shards, deadLetters, etcd };
      return summarizeCluster({ ...facts, ownerOf: (shard) => owners.get(shard), answers: new Map(answers) });
      async function askNode(node: NodeId): Promise<NodeReport> {
        return (await router.inspect(node, {}, askWithinMs)) as NodeReport;
      }
    },
    why,
    move: async (shard, name) => {
      check(shard);
      return await membership().change({ kind: "pin", shard, name });
    },
    weigh: async (name, weight, groups) => await membership().change({ kind: "weigh", name, weight, groups }),
    drain: async (name) => await membership().change({ kind: "drain", name }),
  };
}

/** Raises UNKNOWN_TYPE and INVALID_EID. */
function shardOfEntity(
  options: ControlOptions,
  { type, eid }: { readonly type: string; readonly eid: string },
): ShardId {
  const spec = options.model.entities.get(type);
  if (spec === undefined) throw new StarlingError("UNKNOWN_TYPE", `no entity type ${type} in the model`);
  readEid(spec, eid);
  return shardOfType(type, eid, options);
}

/** What this node says when another one asks; of a shard that is not here null. */
export function inspectSelf(options: ControlOptions, subject: InspectSubject): NodeReport | ShardInspection | null {
  const { shard, type = "", eid = "" } = subject;
  return shard === undefined ? reportSelf(options) : options.local.inspect(shard, type === "" ? null : { type, eid });
}

function reportSelf({ local, clock, startedMs, counters, joined, problem }: ControlOptions): NodeReport {
  const facts = joined();
  const now = clock.now();
  const trouble = problem();
  return {
    ...local.report(),
    uptimeS: (now - startedMs) / 1000,
    problem:
      trouble === null
        ? null
        : { text: `${trouble.error.code}: ${trouble.error.message}`, forMs: now - trouble.sinceMs },
    etcdSilentMs: facts === null || facts.alone ? null : now - facts.membership.answeredAtMs,
    databaseSilentMs: facts === null ? 0 : now - facts.databaseAtMs,
    handOffsDone: counters.counter("shards_given_up").value,
  };
}

/** An answer, or in words why there is none. Never rejects. */
async function settle<T>(asked: T | Promise<T>): Promise<T | string> {
  try {
    return await asked;
  } catch (error) {
    return toStarlingError(error).message;
  }
}

function stateOf(isOwned: boolean, found: ShardInspection | string | null): string {
  if (typeof found === "string") return "unknown";
  if (found === null || !isOwned) return "unowned";
  if (found.report === null) return "arriving";
  return found.report.handOff === null ? "owned" : "handing off";
}

/** Null: PostgreSQL did not answer in time. */
async function countLetters({ queries, clock }: ControlOptions): Promise<ReadonlyMap<ShardId, number> | null> {
  const text = "PostgreSQL did not answer";
  try {
    return await withDeadline(queries.countDeadLetters(), { clock, deadlineMs: askWithinMs, text });
  } catch {
    return null; // the answer says that PostgreSQL is away
  }
}

async function lookAtEtcd({ joined, clock }: ControlOptions): Promise<"answers" | "away" | null> {
  const facts = joined();
  if (facts === null || facts.alone) return null;
  try {
    await withDeadline(facts.membership.look(), { clock, deadlineMs: askWithinMs, text: "etcd did not answer" });
    return "answers";
  } catch {
    return "away"; // the answer says so
  }
}
