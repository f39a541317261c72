import { randomUUID } from "node:crypto";
import { hostname } from "node:os";
import type { Counters } from "../actors/counters.ts";
import type { Coordinator } from "../cluster/coordinator.ts";
import { openEtcd } from "../cluster/etcd/etcd.ts";
import { guardCoordinator, readMark } from "../cluster/guarded-coordinator.ts";
import { type GrpcLinks, startGrpcLinks } from "../cluster/links/grpc-links.ts";
import type { LinkSecurity } from "../cluster/links/link-security.ts";
import { joinMembership } from "../cluster/membership/join-membership.ts";
import type { Membership, MembershipView } from "../cluster/membership/membership.ts";
import { createMemoryCoordinator } from "../cluster/memory-coordinator.ts";
import { systemClock } from "../proto/clock.ts";
import { type NodeId, toNodeId } from "../proto/ids.ts";
import { StarlingError } from "../proto/starling-error.ts";
import type { Settings } from "./config/settings.ts";
import { checkLikeness, type Likeness } from "./likeness.ts";
import type { Log } from "./log.ts";
import type { Database } from "./open-database.ts";
import { version } from "./version.ts";

/** Versions of the protocol between nodes that this one speaks; from 2 on they read short states (`entity-state.ts`). */
const linkProtocol = { protocolMin: 1, protocolMax: 2 } as const;

export interface ClusterOptions {
  readonly settings: Settings;
  readonly database: Pick<Database, "clusterId" | "keepCoordinator">;
  /** The id that this node takes first. */
  readonly node: NodeId;
  readonly likeness: Likeness;
  readonly security: LinkSecurity;
  readonly counters: Counters;
  readonly log: Log;
  /** Gives the entering up. */
  readonly signal?: AbortSignal | undefined;
}

/** The other nodes, and this one among them. */
export interface Cluster {
  readonly links: GrpcLinks;
  /** Whether there never are other nodes. */
  readonly alone: boolean;
  /** Enters under the address that the server was bound to. Raises CONFIG where this node is not like the others. */
  join(bound: string): Promise<Membership>;
  /** Addresses of the nodes that are there; before joining none. */
  addresses(): readonly string[];
  /** Of those the others that stay. */
  elsewhere(): readonly string[];
  /** This node's name; empty before joining. */
  name(): string;
  close(): Promise<void>;
}

/**
 * Finds the coordinator: etcd, or, for a cluster of one, memory. Raises UNAVAILABLE when etcd does not answer, and
 * WRONG_CLUSTER when it is not the one that this cluster was created with.
 */
export async function openCluster(options: ClusterOptions): Promise<Cluster> {
  const { settings, database, likeness, security, counters, log } = options;
  const prefix = `/starling/${database.clusterId}/`;
  const coordinator =
    settings.etcd === null
      ? createMemoryCoordinator({ clock: systemClock })
      : await openKnownEtcd(options, settings.etcd, prefix);
  let membership: Membership | null = null;
  let address = "";
  let ownName = "";
  const nameOf = (bound: string): string => settings.name ?? `${hostname()}-${bound.replace(/^.*:/, "")}`;
  const links = startGrpcLinks({
    self: () => ({ id: membership?.self.id ?? options.node, name: ownName, address }),
    ...{ clusterId: database.clusterId, ...linkProtocol, modelHash: likeness.hash },
    ...{ security, clock: systemClock, log, counters },
  });
  const ids = [options.node];
  return {
    links,
    alone: settings.etcd === null,
    join: async (bound) => {
      address = settings.advertise ?? bound;
      ownName = nameOf(bound);
      membership = await joinMembership({
        ...{ coordinator, clock: systemClock, random: Math.random, prefix, log },
        newId: () => ids.shift() ?? toNodeId(randomUUID()),
        record: {
          name: ownName,
          address,
          version,
          ...linkProtocol,
          modelHash: likeness.hash,
          parts: likeness.parts,
        },
        leaseTtlMs: settings.leaseTtlMs,
        ...(options.signal && { signal: options.signal }),
      });
      const { view, self } = membership;
      if (!settings.rolling)
        checkLikeness(
          likeness,
          view.nodes.filter(({ id }) => id !== self.id),
        );
      return membership;
    },
    addresses: () => membership?.view.nodes.map((node) => node.address) ?? [],
    elsewhere: () => {
      if (membership === null) return [];
      const { view, self } = membership;
      return findElsewhere(view, self.id);
    },
    name: () => ownName,
    close: async () => {
      await membership?.close();
      await links.close();
      await coordinator.close();
    },
  };
}

/** Where clients of a node can go that leaves: to who stays. By id, as a node may be known by another address than it has. */
export function findElsewhere({ nodes }: Pick<MembershipView, "nodes">, self: NodeId): readonly string[] {
  return nodes.filter(({ id, state }) => id !== self && state !== "leaving").map(({ address }) => address);
}

/** An etcd that has lost its data, or another one, must not make a second cluster of the same database (R22). */
async function openKnownEtcd(
  { database, log }: ClusterOptions,
  endpoints: readonly string[],
  prefix: string,
): Promise<Coordinator> {
  const say = (problem: StarlingError | null): void => {
    if (problem === null) log.info({}, "etcd is the one of this cluster again");
    else log.error({ problem: problem.message }, "etcd is not used: what it says of the cluster is not believed");
  };
  const etcd = openEtcd({
    endpoints,
    clock: systemClock,
    onProblem: ({ message }) => log.warn({ problem: message }, "the watch on etcd was lost"),
  });
  try {
    const known = await database.keepCoordinator(null);
    const mark = await readMark(etcd, prefix, known === null ? randomUUID : null);
    const stands = mark === null ? null : await database.keepCoordinator(mark.value);
    if (mark === null || stands !== mark.value) {
      const text = `etcd at ${endpoints.join(", ")} is not the one that this cluster was created with: it was emptied, or it is another one. If it is to be the one from now on: starling cluster adopt`;
      throw new StarlingError("WRONG_CLUSTER", text);
    }
    return guardCoordinator(etcd, mark, say);
  } catch (error) {
    await etcd.close();
    throw error;
  }
}
