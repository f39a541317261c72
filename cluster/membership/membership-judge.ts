import type { Clock } from "../../proto/clock.ts";
import type { NodeId } from "../../proto/ids.ts";
import type { Coordinator, LeaseId, Write } from "../coordinator.ts";
import type { MembershipLog, NodeRecord } from "./membership.ts";
import type { Contact } from "./membership-contact.ts";
import type { MembershipKeys } from "./membership-keys.ts";
import { commitOfDeath, type Death, deadTtlMs, type KnownNode, planLapses } from "./membership-plan.ts";
import type { Snapshot } from "./membership-snapshot.ts";
import {
  planSuspicions,
  type SuspicionPlan,
  type Suspicions,
  withoutSuspicion,
  withPublished,
  withSuspicion,
} from "./membership-suspicions.ts";

export interface JudgeOptions {
  readonly coordinator: Coordinator;
  readonly clock: Clock;
  readonly contact: Contact;
  readonly keys: MembershipKeys;
  readonly leaseTtlMs: number;
  readonly log: MembershipLog;
  /** This node's own lease. */
  readonly lease: () => LeaseId | null;
  /** False: this node has left, and says nothing more. */
  readonly isOpen: () => boolean;
}

/** What a node looks at when it judges others. */
export interface Scene {
  readonly self: NodeRecord;
  readonly nodes: ReadonlyMap<NodeId, KnownNode>;
  readonly snapshot: Snapshot;
}

/** A suspicion that stands for so long is proof (R23). */
const contestMs = 1000;
/** After a gap of its own a node gives the others this long to reach the coordinator as well. */
const reconnectMs = 2000;
/** A node that suspects another one may be cut off itself, from hints too: it looks this often. */
const alertEveryMs = 250;
/** After commits that all found other keys than were listed: soon, but never in a tight loop. */
const againMs = 50;

/** What one node thinks of the others: whom it suspects, and whom it marks dead. */
export class Judge {
  readonly #options: JudgeOptions;
  #suspicions: Suspicions = new Map();

  constructor(options: JudgeOptions) {
    this.#options = options;
  }

  /** True: that is news. */
  suspect(node: NodeId, reason: string): boolean {
    const former = this.#suspicions.get(node)?.reason ?? null;
    this.#suspicions = withSuspicion(this.#suspicions, node, reason);
    return former === null;
  }

  /** True: that is news. */
  clear(node: NodeId): boolean {
    if ((this.#suspicions.get(node)?.reason ?? null) === null) return false;
    this.#suspicions = withoutSuspicion(this.#suspicions, node);
    return true;
  }

  /** Suspects nobody any more. */
  forget(): void {
    this.#suspicions = new Map();
  }

  /** What to do about suspicions. */
  plan({ self, nodes, snapshot }: Scene): SuspicionPlan {
    const { clock, contact } = this.#options;
    const plan = planSuspicions(this.#suspicions, {
      self: self.id,
      nodes,
      snapshot,
      nowMs: clock.now(),
      notBeforeMs: contact.sinceMs + reconnectMs,
      contestMs,
    });
    this.#suspicions = plan.suspicions;
    return plan;
  }

  /**
   * Says whom this node suspects, and marks dead who has to be. Returns in how many milliseconds there is more to do. Raises
   * UNAVAILABLE: what was done is unknown, the next scene shows it.
   */
  async carryOut(scene: Scene, plan: SuspicionPlan): Promise<number> {
    const { clock, contact, leaseTtlMs } = this.#options;
    const { self, nodes, snapshot } = scene;
    const lapses = planLapses({
      self: self.id,
      nodes,
      snapshot,
      nowMs: clock.now(),
      connectedSinceMs: contact.sinceMs,
      leaseTtlMs,
    });
    for (const node of plan.publish) await this.#publish(node, scene);
    const suspected = new Set(plan.deaths.map(({ id }) => id));
    const deaths = [...plan.deaths, ...lapses.deaths.filter(({ id }) => !suspected.has(id))];
    if (deaths.length > 0) {
      return (await this.#markDead(scene, deaths)) > 0 ? 0 : againMs;
    }
    return Math.min(plan.waitMs, lapses.waitMs, this.#suspicions.size > 0 ? alertEveryMs : Number.POSITIVE_INFINITY);
  }

  async #publish(node: NodeId, { self, snapshot }: Scene): Promise<void> {
    const { coordinator, clock, keys, log, isOpen } = this.#options;
    const lease = this.#options.lease();
    const reason = this.#suspicions.get(node)?.reason ?? null;
    if (lease === null || reason === null || !isOpen()) return;
    const key = keys.suspect(node, self.id);
    const own = { key: keys.node(self.name), revision: snapshot.holders.get(self.name)?.revision ?? 0 };
    const put: Write = { kind: "put", key, value: JSON.stringify({ reason }), lease };
    const { done, revision } = await coordinator.commit([own, { key, revision: 0 }], [put]);
    if (!done) return;
    log.warn({ node, reason }, "node suspected");
    this.#suspicions = withPublished(this.#suspicions, node, revision, clock.now());
  }

  /** Returns how many it was. */
  async #markDead({ self, snapshot }: Scene, deaths: readonly Death[]): Promise<number> {
    const { coordinator, keys, log, isOpen } = this.#options;
    if (!isOpen()) return 0;
    const lease = await coordinator.grant(deadTtlMs);
    let done = 0;
    for (const death of deaths) {
      if (!isOpen()) break;
      const { conditions, writes } = commitOfDeath(keys, self, snapshot, death, lease);
      if (!(await coordinator.commit(conditions, writes)).done) continue;
      done++;
      log.warn({ node: death.id, name: death.name, reason: death.reason }, "node given up");
    }
    if (done === 0) await coordinator.revoke(lease);
    return done;
  }
}
