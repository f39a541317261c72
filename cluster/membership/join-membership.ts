/**
 * A node among the others, by way of the coordinator: everything that it does there it does in passes, one after another. A pass
 * lists all keys of the cluster, plans (`membership-plan.ts`, `membership-suspicions.ts`), and commits what follows; its
 * commits hold only if the keys are still as they were listed, and a pass whose outcome is unknown is followed by one that
 * looks. Hints, timers and callers only wake the loop up, so no message has to arrive.
 *
 * A node is `entering` until its record stands for the first time, then `inside`; the others may give it up, then it is
 * `outside`: what owned shards for it is told and awaited, and it enters again under a new id after a while.
 *
 * 1. Without the coordinator the view stands still: nobody comes, nobody goes.
 * 2. A coordinator that lost its data, or another one, is none.
 * 3. The id under which a node was given up is never put again.
 */
import type { Clock } from "../../proto/clock.ts";
import { withDeadline } from "../../proto/deadline.ts";
import type { NodeId } from "../../proto/ids.ts";
import { StarlingError, toStarlingError } from "../../proto/starling-error.ts";
import type { Coordinator } from "../coordinator.ts";
import type { Membership, MembershipLog, MembershipView, NodeRecord, NodeState } from "./membership.ts";
import { backOffAfter } from "./membership-back-off.ts";
import { type ChangeWorld, type MembershipChange, type MembershipChanged, makeChange } from "./membership-change.ts";
import { type Contact, createContact } from "./membership-contact.ts";
import { Judge } from "./membership-judge.ts";
import { createMembershipKeys, type MembershipKeys } from "./membership-keys.ts";
import { OwnLease } from "./membership-lease.ts";
import { tellAll, withdrawRecord } from "./membership-leave.ts";
import { type PassLoop, startPassLoop } from "./membership-loop.ts";
import { planSelf, type SelfPlan } from "./membership-plan.ts";
import { createSight, type Sight } from "./membership-sight.ts";
import { readSnapshot, type Snapshot } from "./membership-snapshot.ts";
import { type Waiter, waitFor } from "./membership-waiter.ts";
import { createWorldCheck, type WorldCheck } from "./membership-world.ts";
import { writeNodeRecord } from "./node-record.ts";

export interface MembershipOptions {
  readonly coordinator: Coordinator;
  readonly clock: Clock;
  /** From 0 to below 1: spreads what nodes would else do at the same instant. */
  readonly random: () => number;
  readonly newId: () => NodeId;
  /** Of the cluster's keys, as `/starling/<clusterId>/`. */
  readonly prefix: string;
  /** This node; its id is a new one, it begins as joining. */
  readonly record: Omit<NodeRecord, "id" | "state">;
  /** How soon a node that says nothing more may be given up. */
  readonly leaseTtlMs?: number;
  /** How often everything is listed again when nothing happens. */
  readonly relistEveryMs?: number;
  /** How long entering may take while the coordinator is away. */
  readonly joinTimeoutMs?: number;
  /** Gives the entering up. */
  readonly signal?: AbortSignal;
  readonly log: MembershipLog;
}

/**
 * Enters the cluster; the record stands and the view is read when the promise resolves. Raises CONFIG when another node has
 * the name and keeps it, VERSION_MISMATCH when one is there that cannot talk to this one, and UNAVAILABLE when the coordinator
 * does not let this node in within `joinTimeoutMs`. After an expulsion the state that was announced last is published again.
 */
export async function joinMembership(options: MembershipOptions): Promise<Membership> {
  const membership = new JoinedMembership(options);
  await membership.enter(options.joinTimeoutMs ?? 30_000);
  return membership;
}

const retryMs = 500;
/** After a commit that found other keys, or no lease: soon, but never in a tight loop. */
const againMs = 50;
/** A node that was inside for so long is no longer held to be flapping. */
const wellAfterMs = 300_000;
/** How late the coordinator may end a lease that lapsed. */
const lapseMs = 1500;
const announceTimeoutMs = 5000;
const leaveTimeoutMs = 1000;

type Status =
  /** `busy`: another node has the name, and since when. */
  | { readonly kind: "entering"; readonly busy: { readonly by: string; readonly sinceMs: number } | null }
  | { readonly kind: "inside"; readonly sinceMs: number }
  /** Infinity: who has to be told that this node was given up is not yet done. */
  | { readonly kind: "outside"; readonly notBeforeMs: number }
  | { readonly kind: "closed" };

class JoinedMembership implements Membership {
  readonly #options: MembershipOptions;
  readonly #leaseTtlMs: number;
  readonly #keys: MembershipKeys;
  readonly #contact: Contact;
  readonly #world: WorldCheck;
  readonly #lease: OwnLease;
  readonly #judge: Judge;
  readonly #sight: Sight;
  readonly #loop: PassLoop;
  readonly #unwatch: () => void;
  readonly #expelledListeners = new Set<(reason: string) => Promise<void>>();
  readonly #announcing = new Set<Waiter>();
  #status: Status = { kind: "entering", busy: null };
  /** What is to be published; `#published` is what was. */
  #me: NodeRecord;
  #published: NodeRecord;
  #entering: Waiter | null = null;
  #expulsions = 0;
  /** It was said that nodes are there with which this one cannot talk. */
  #isForeign = false;
  #answers: "yes" | "no" = "yes";
  #closing: Promise<void> | null = null;

  constructor(options: MembershipOptions) {
    const { coordinator, clock, log, leaseTtlMs = 4000 } = options;
    this.#options = options;
    this.#leaseTtlMs = leaseTtlMs;
    this.#keys = createMembershipKeys(options.prefix);
    this.#contact = createContact(clock, leaseTtlMs);
    this.#world = createWorldCheck(coordinator);
    this.#me = { ...options.record, id: options.newId(), state: "joining" };
    this.#published = this.#me;
    this.#sight = createSight(clock, log);
    const shared = { coordinator, clock, log, contact: this.#contact, keys: this.#keys, leaseTtlMs };
    const onLost = (): void => this.#onLeaseLost();
    this.#lease = new OwnLease({ ...shared, onLost, onProblem: (problem) => void this.#failed(problem) });
    this.#judge = new Judge({ ...shared, lease: () => this.#lease.id, isOpen: () => !this.#isClosed() });
    this.#loop = startPassLoop(clock, () =>
      this.#pass().catch((error: unknown) => this.#failed(toStarlingError(error))),
    );
    this.#unwatch = coordinator.watch(this.#keys.prefix, () => this.#loop.wake());
  }

  get self(): NodeRecord {
    return this.#published;
  }

  get view(): MembershipView {
    return this.#sight.view;
  }

  get connected(): boolean {
    return this.#contact.connected;
  }

  get answeredAtMs(): number {
    return this.#contact.answeredAtMs;
  }

  async look(): Promise<void> {
    await this.#world.list(this.#keys.prefix);
    this.#contact.answered();
  }

  onView(listener: (view: MembershipView) => void): () => void {
    return this.#sight.onView(listener);
  }

  onExpelled(listener: (reason: string) => Promise<void>): () => void {
    this.#expelledListeners.add(listener);
    return () => void this.#expelledListeners.delete(listener);
  }

  async enter(timeoutMs: number): Promise<void> {
    const { clock, signal } = this.#options;
    const late = new StarlingError("UNAVAILABLE", "the coordinator did not let this node in in time");
    const wait = waitFor(clock, timeoutMs, late, signal);
    this.#entering = wait;
    try {
      await wait.promise;
    } catch (error) {
      await this.close();
      throw error;
    } finally {
      this.#entering = null;
    }
  }

  /** The state stays wanted when the coordinator does not answer in time, which raises UNAVAILABLE. */
  async announce(state: NodeState): Promise<void> {
    if (this.#isClosed()) throw hasLeft();
    this.#me = { ...this.#me, state };
    const late = new StarlingError("UNAVAILABLE", `the state ${state} could not be published yet`);
    const wait = waitFor(this.#options.clock, announceTimeoutMs, late);
    this.#announcing.add(wait);
    this.#loop.wake();
    try {
      await wait.promise;
    } finally {
      this.#announcing.delete(wait);
    }
  }

  async change(change: MembershipChange): Promise<MembershipChanged> {
    if (this.#isClosed()) throw hasLeft();
    const { coordinator, clock } = this.#options;
    const keys = this.#keys;
    const world: ChangeWorld = { coordinator, keys, list: () => this.#world.list(keys.prefix) };
    const text = "etcd did not answer, it is unknown whether anything was changed";
    const changed = await withDeadline(makeChange(world, change), { clock, deadlineMs: announceTimeoutMs, text });
    this.#loop.wake();
    return changed;
  }

  suspect(node: NodeId, reason: string): void {
    if (this.#status.kind !== "inside" || node === this.#me.id || !this.#sight.nodes.has(node)) return;
    if (this.#judge.suspect(node, reason)) this.#loop.wake();
  }

  clear(node: NodeId): void {
    if (this.#judge.clear(node)) this.#loop.wake();
  }

  close(): Promise<void> {
    this.#closing ??= this.#leave();
    return this.#closing;
  }

  /** Returns after how many milliseconds the next pass is due. */
  async #pass(): Promise<number> {
    const askedMs = this.#options.clock.now();
    const snapshot = readSnapshot(this.#keys, await this.#world.list(this.#keys.prefix));
    if (this.#isClosed()) return 0;
    this.#answered();
    const self = planSelf(this.#me, this.#lease.id, snapshot);
    this.#follow(self, askedMs);
    const isInside = this.#status.kind === "inside";
    this.#sight.observe(snapshot, (node) => (node === this.#me.id || node === this.#published.id ? isInside : true));
    if (isInside) this.#entering?.resolve();
    const scene = { self: this.#me, nodes: this.#sight.nodes, snapshot };
    const plan = this.#judge.plan(scene);
    await this.#takeBack(snapshot, plan.withdraw);
    if (this.#isClosed()) return 0;
    const untilEntryMs = this.#untilEntryMs();
    if (self.kind === "put" && untilEntryMs <= 0) return await this.#put(self.revision);
    if (self.kind === "keep") return this.#restMs(await this.#judge.carryOut(scene, plan));
    const busy = this.#status.kind === "entering" ? this.#status.busy : null;
    if (busy !== null) return this.#restMs(this.#heldUntilMs(busy.sinceMs) - this.#options.clock.now());
    return this.#restMs(untilEntryMs > 0 ? untilEntryMs : Number.POSITIVE_INFINITY);
  }

  /** Who still has a name then, with which it was seen first at `sinceMs`, lives: the lease of a dead node has lapsed. */
  #heldUntilMs(sinceMs: number): number {
    return sinceMs + this.#leaseTtlMs + lapseMs;
  }

  /** Takes note of how this node's own record stands. */
  #follow(self: SelfPlan, askedMs: number): void {
    const { log, clock } = this.#options;
    const status = this.#status;
    if (self.kind === "keep") {
      this.#published = this.#me;
      this.#isForeign = false;
      if (status.kind !== "inside") {
        this.#status = { kind: "inside", sinceMs: clock.now() };
        log.info({ node: this.#me.id, name: this.#me.name }, "node joined the cluster");
      }
      for (const { resolve } of this.#announcing) resolve();
    } else if (self.kind === "dead") {
      this.#expel(`the others gave it up: ${self.reason}`);
    } else if (self.kind === "taken" && status.kind === "inside") {
      this.#expel(
        `its name was taken by ${self.by?.id ?? "another node"} at ${self.by?.address ?? "an unknown address"}`,
      );
    } else if (self.kind === "foreign") {
      this.#stayAway(self.problem);
    } else if (status.kind === "entering") {
      this.#waitForName(self.kind === "taken" ? self : null, status.busy, askedMs);
    }
  }

  #stayAway(problem: StarlingError): void {
    if (this.#entering !== null) this.#entering.reject(problem);
    else if (!this.#isForeign) this.#options.log.error({ problem: problem.message }, "node does not return");
    this.#isForeign = true;
  }

  /** A name that is held is waited for, as its node may just have ended; who asks after its lease must have lapsed knows. */
  #waitForName(
    holder: { readonly by: NodeRecord | null } | null,
    busy: { readonly by: string; readonly sinceMs: number } | null,
    askedMs: number,
  ): void {
    const [{ log, clock }, { name }] = [this.#options, this.#me];
    const by = holder?.by?.id ?? "";
    const address = holder?.by?.address ?? "an unknown address";
    if (holder === null) {
      this.#status = { kind: "entering", busy: null };
    } else if (busy === null || busy.by !== by) {
      this.#status = { kind: "entering", busy: { by, sinceMs: clock.now() } };
      log.info({ name, holder: by, address }, "name is held by another node and was waited for");
    } else if (askedMs >= this.#heldUntilMs(busy.sinceMs)) {
      const text = `another node named ${name} is alive at ${address}, give this one another name`;
      this.#entering?.reject(new StarlingError("CONFIG", text));
    }
  }

  /** Given up: everything of the former id ends, then a new one may enter after a while. */
  #expel(reason: string): void {
    const { log, clock, newId, random } = this.#options;
    const former = this.#status;
    if (former.kind === "inside" && clock.now() - former.sinceMs >= wellAfterMs) this.#expulsions = 0;
    const backOffMs = backOffAfter(this.#expulsions++, random);
    log.warn({ node: this.#me.id, reason, backOffMs }, "node was given up");
    this.#me = { ...this.#me, id: newId() };
    this.#judge.forget();
    void this.#lease.release();
    const told = former.kind === "inside" ? tellAll(this.#expelledListeners, reason, log) : Promise.resolve();
    const status: Status = { kind: "outside", notBeforeMs: Number.POSITIVE_INFINITY };
    if (former.kind !== "entering") this.#status = status;
    void told.then(() => {
      if (this.#status !== status) return;
      this.#status = { kind: "outside", notBeforeMs: clock.now() + backOffMs };
      this.#loop.wake();
    });
  }

  /** Contests what others suspect of this node, and withdraws what it suspects no longer. */
  async #takeBack({ suspicions }: Snapshot, withdraw: readonly string[]): Promise<void> {
    const self = this.#me.id;
    const contested = suspicions.filter(({ suspect }) => suspect === self).map(({ key }) => key);
    const writes = [...new Set([...contested, ...withdraw])].map((key) => ({ kind: "delete", key }) as const);
    if (writes.length === 0) return;
    await this.#options.coordinator.commit([], writes);
    if (contested.length > 0) this.#options.log.warn({ node: self, by: contested.length }, "suspicion was contested");
  }

  /** 0 or less: this node may put its record. */
  #untilEntryMs(): number {
    const status = this.#status;
    return status.kind === "outside" ? status.notBeforeMs - this.#options.clock.now() : 0;
  }

  async #put(revision: number): Promise<number> {
    const lease = await this.#lease.acquire();
    if (this.#isClosed()) return 0;
    const { id, name } = this.#me;
    const key = this.#keys.node(name);
    const { done } = await this.#options.coordinator.commit(
      [
        { key, revision },
        { key: this.#keys.dead(id), revision: 0 },
      ],
      [{ kind: "put", key, value: writeNodeRecord(this.#me), lease }],
    );
    return done ? 0 : againMs;
  }

  #restMs(dueMs: number): number {
    const { relistEveryMs = 2000, random } = this.#options;
    return Math.max(0, Math.min(dueMs, relistEveryMs * (0.9 + random() / 5)));
  }

  #answered(): void {
    this.#contact.answered();
    if (this.#answers === "no") this.#options.log.info({}, "coordinator answered again");
    this.#answers = "yes";
  }

  /** Returns after how many milliseconds to try again. */
  #failed(problem: StarlingError): number {
    if (this.#isClosed()) return 0;
    const { log, random } = this.#options;
    this.#world.doubt();
    if (problem.code === "NOT_FOUND") {
      this.#lease.forget();
      log.warn({ node: this.#me.id }, "lease of this node was gone");
      return againMs;
    }
    this.#contact.failed();
    if (this.#answers === "yes")
      log.warn({ code: problem.code, problem: problem.message }, "coordinator did not answer");
    this.#answers = "no";
    return retryMs * (0.75 + random() / 2);
  }

  #onLeaseLost(): void {
    if (this.#isClosed()) return;
    this.#options.log.warn({ node: this.#me.id }, "lease of this node was gone");
    this.#world.doubt();
    this.#loop.wake();
  }

  #isClosed(): boolean {
    return this.#status.kind === "closed";
  }

  async #leave(): Promise<void> {
    const { coordinator, clock, log } = this.#options;
    this.#status = { kind: "closed" };
    this.#unwatch();
    this.#loop.close();
    for (const { reject } of this.#announcing) reject(hasLeft());
    this.#entering?.reject(hasLeft());
    const list = () => this.#world.list(this.#keys.prefix);
    const leaving = withdrawRecord({ coordinator, keys: this.#keys, self: this.#me, list, log });
    const stopped = waitFor(clock, leaveTimeoutMs, hasLeft());
    void leaving.then(() => this.#lease.close()).then(stopped.resolve);
    await stopped.promise.catch(() => log.warn({ node: this.#me.id }, "coordinator was not waited for any longer"));
  }
}

function hasLeft(): StarlingError {
  return new StarlingError("UNAVAILABLE", "this node has left");
}
