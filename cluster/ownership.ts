import { type Clock, untilBeat } from "../proto/clock.ts";
import { withDeadline } from "../proto/deadline.ts";
import { type Epoch, type NodeId, type ShardId, toEpoch } from "../proto/ids.ts";
import { toStarlingError } from "../proto/starling-error.ts";
import type { Membership } from "./membership/membership.ts";
import type { Ownership, OwnerTable } from "./owner-table.ts";
import { type OwnershipPlan, planOwnership } from "./plan-ownership.ts";

/** A shard and its epoch, as it was taken or is given up. */
export type Held = Pick<Ownership, "shard" | "epoch">;

/** What PostgreSQL says and does about owners. */
export interface OwnershipStore<Acquired extends Held> {
  readOwners(): Promise<readonly Ownership[]>;
  /** Shards that somebody else claims just now, or that do not fit the terms, are missing in the answer. */
  acquire(node: NodeId, shards: readonly ShardId[], terms: AcquireTerms): Promise<readonly Acquired[]>;
  release(held: readonly Held[], node: NodeId): Promise<void>;
}

/** What this node knows: it takes nothing by less than the others know. */
export interface AcquireTerms {
  readonly epochOf: (shard: ShardId) => Epoch;
  /** Of the membership; null: there are no other nodes. */
  readonly revision: number | null;
}

/** The shards of this node, at work. */
export interface ShardKeeper<Acquired extends Held> {
  owns(shard: ShardId): boolean;
  own(acquired: readonly Acquired[]): Promise<void>;
  /** Settles with what is to be released. */
  giveUp(shards: readonly ShardId[]): Promise<readonly Held[]>;
  drop(shards: readonly ShardId[]): void;
  onLost(listener: (shards: readonly ShardId[]) => void): () => void;
}

export interface OwnershipOptions<Acquired extends Held> {
  readonly shards: readonly ShardId[];
  readonly membership: Membership;
  readonly owners: OwnerTable;
  readonly store: OwnershipStore<Acquired>;
  readonly keeper: ShardKeeper<Acquired>;
  /** Tells the other nodes. */
  readonly announce: (news: readonly Ownership[]) => void;
  readonly clock: Clock;
  readonly log: OwnershipLog;
  /** Told whether PostgreSQL answered the last reading. */
  readonly onReading?: (outcome: "fine" | "trouble") => void;
  /** There never are other nodes: membership is this process's own affair, and its revisions mean nothing elsewhere. */
  readonly alone: boolean;
  readonly limits?: Partial<OwnershipLimits>;
}

export interface OwnershipLog {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
}

export interface OwnershipLimits {
  /** How often owners and epochs are read again (R24). */
  readonly rereadMs: number;
  /** How long one reading may take. */
  readonly readMs: number;
  /** How old that may be for this node to answer reads, asks and timers (R24). */
  readonly staleMs: number;
  /** Shards that are given up at once: few, since each pauses until all of them are written. */
  readonly giveUpMax: number;
  /** Pause before what failed is tried again. */
  readonly retryMs: number;
  /** How long another node has to be ailing before its shards are taken from it. */
  readonly ailingMs: number;
}

const defaultLimits: OwnershipLimits = {
  rereadMs: 1000,
  staleMs: 3000,
  giveUpMax: 8,
  readMs: 2000,
  retryMs: 200,
  ailingMs: 3000,
};

/**
 * Makes this node's shards those that the allocation gives it (`plan-ownership.ts`): acquires, and gives up.
 *
 *  O1  What a node serves it has acquired: PostgreSQL's epoch says so, and every write is compared with it (P4).
 *  O2  A shard is released only when nothing of it is left in memory, and announced only when that, or its acquiring, is durable.
 *  O3  Owners are read again all the time, and told by other nodes: what another one has taken is dropped, also when this one
 *      has nothing to write.
 *  O4  At most one acquiring and one giving up are in hand; whatever fails is planned anew from what is known then.
 */
export class OwnershipKeeper<Acquired extends Held> {
  readonly #options: OwnershipOptions<Acquired>;
  readonly #limits: OwnershipLimits;
  readonly #subscriptions: (() => void)[] = [];
  readonly #timers = new Set<() => void>();
  /** On their way in or out: no business of a plan. */
  readonly #busy = new Set<ShardId>();
  /** The epochs under which shards were last acquired. */
  readonly #epochs = new Map<ShardId, Epoch>();
  #acquiring: Promise<void> | null = null;
  #givingUp: Promise<void> | null = null;
  #reading: Promise<void> | null = null;
  #readAt: number | null = null;
  /** The last reading. */
  #rows: readonly Ownership[] = [];
  /** What the last acquiring asked for and did not get. */
  #refused: ReadonlySet<ShardId> = new Set();
  readonly #ailingSince = new Map<NodeId, number>();
  /** Whether the last plan had something to do. */
  #unsettled = false;
  #status: "running" | "closed" = "running";
  #planned: "no" | "soon" = "no";
  /** Who waits for something looks again after each change, and at the end. */
  readonly #waiting = new Set<() => void>();

  constructor(options: OwnershipOptions<Acquired>) {
    this.#options = options;
    this.#limits = { ...defaultLimits, ...options.limits };
    const { membership, owners, keeper } = options;
    this.#subscriptions.push(
      membership.onView(() => this.#planSoon()),
      owners.onChange(() => {
        this.#dropForeign();
        this.#planSoon();
      }),
      keeper.onLost(() => void this.#read()),
    );
    this.#readAgain();
  }

  /** Whether this node knows well enough what it owns to answer from it (R24). */
  get fresh(): boolean {
    return this.#readAt !== null && this.#options.clock.now() - this.#readAt < this.#limits.staleMs;
  }

  /** When the last successful reading of the owners was begun (monotonic ms); null: there was none yet. */
  get readAtMs(): number | null {
    return this.#readAt;
  }

  /** Resolves when nothing is left to take that could be taken, or when closed. */
  async ready(): Promise<void> {
    while (this.#status === "running" && !this.#isReady()) {
      await new Promise<void>((resolve) => this.#waiting.add(resolve));
    }
  }

  /** Resolves when this node owns nothing that another one is to have, or when closed. */
  async handedOver(): Promise<void> {
    while (this.#status === "running" && (this.#givingUp !== null || this.#plan().giveUp.length > 0)) {
      await new Promise<void>((resolve) => this.#waiting.add(resolve));
    }
  }

  /** Stops planning; waits for what is in hand. Idempotent. Releases nothing. */
  async close(): Promise<void> {
    this.#status = "closed";
    for (const end of this.#subscriptions.splice(0)) end();
    for (const cancel of this.#timers) cancel();
    this.#timers.clear();
    this.#wake();
    await Promise.all([this.#acquiring, this.#givingUp, this.#reading]);
  }

  #plan(): OwnershipPlan {
    const { membership, shards, owners, keeper } = this.#options;
    const { view, self } = membership;
    const ailing = this.#ailingForLong();
    const plan = planOwnership({ self: self.id, view, shards, owners, ailing, owns: (shard) => keeper.owns(shard) });
    const free = (shard: ShardId): boolean => !this.#busy.has(shard);
    return { ...plan, acquire: plan.acquire.filter(free), giveUp: plan.giveUp.filter(free) };
  }

  /**
   * Nodes that were ailing all the time in which this one served. Who recovers first, when PostgreSQL was away from all, must
   * not take the others' shards for that.
   */
  #ailingForLong(): ReadonlySet<NodeId> {
    const { membership, clock } = this.#options;
    const { nodes } = membership.view;
    const ids = nodes.filter(({ state }) => state === "ailing").map(({ id }) => id);
    const serves = nodes.some(({ id, state }) => id === membership.self.id && state === "serving");
    for (const id of this.#ailingSince.keys()) if (!serves || !ids.includes(id)) this.#ailingSince.delete(id);
    const now = clock.now();
    const found = new Set<NodeId>();
    for (const id of serves ? ids : []) {
      const since = this.#ailingSince.get(id);
      if (since === undefined) {
        this.#ailingSince.set(id, now);
        this.#after(this.#limits.ailingMs, () => this.#planSoon());
      } else if (now - since >= this.#limits.ailingMs) found.add(id);
    }
    return found;
  }

  #isReady(): boolean {
    return this.#readAt !== null && this.#acquiring === null && this.#plan().acquire.length === 0;
  }

  #planSoon(): void {
    if (this.#planned === "soon" || this.#status === "closed") return;
    this.#planned = "soon";
    this.#options.clock.soon(() => {
      this.#planned = "no";
      this.#tend();
    });
  }

  #tend(): void {
    if (this.#status === "closed" || this.#readAt === null) return;
    const { acquire, giveUp } = this.#plan();
    this.#unsettled = acquire.length + giveUp.length > 0;
    if (acquire.length > 0 && this.#acquiring === null) {
      this.#acquiring = this.#run(
        acquire,
        () => this.#acquire(acquire),
        () => {
          this.#acquiring = null;
        },
      );
    }
    if (giveUp.length > 0 && this.#givingUp === null) {
      const some = giveUp.slice(0, this.#limits.giveUpMax);
      this.#givingUp = this.#run(
        some,
        () => this.#giveUp(some),
        () => {
          this.#givingUp = null;
        },
      );
    }
    this.#wake();
  }

  /** Runs one acquiring or giving up; never rejects. */
  async #run(shards: readonly ShardId[], work: () => Promise<"done" | "later">, ended: () => void): Promise<void> {
    for (const shard of shards) this.#busy.add(shard);
    let outcome: "done" | "later" = "later";
    try {
      outcome = await work();
    } catch (error) {
      const { code, message } = toStarlingError(error);
      this.#options.log.warn({ shards: shards.length, code, problem: message }, "shards could not change hands");
    }
    for (const shard of shards) this.#busy.delete(shard);
    ended();
    if (outcome === "later") this.#after(this.#limits.retryMs, () => this.#planSoon());
    else this.#planSoon();
  }

  /** Somebody else may be first: what came of that is read before the rest is planned again. */
  async #acquire(shards: readonly ShardId[]): Promise<"done" | "later"> {
    const { store, membership, owners, keeper, log } = this.#options;
    const { id } = membership.self;
    // In another world epochs may be lower than what is remembered of the one before (R25): who was refused goes by what was read.
    const refused = this.#refused;
    const read = new Map(refused.size === 0 ? [] : this.#rows.map((row) => [row.shard, row]));
    const acquired = await store.acquire(id, shards, {
      epochOf: (shard) => (refused.has(shard) ? read.get(shard) : owners.get(shard))?.epoch ?? toEpoch(0),
      revision: this.#options.alone ? null : membership.view.revision,
    });
    const got = new Set(acquired.map(({ shard }) => shard));
    this.#refused = new Set(shards.filter((shard) => !got.has(shard)));
    const missing = this.#refused.size;
    if (missing > 0) {
      log.info({ shards: missing }, "shards were claimed by another node");
      void this.#read();
    }
    const outcome = missing > 0 ? "later" : "done";
    if (acquired.length === 0 || this.#status === "closed" || membership.self.id !== id) return outcome;
    const news = acquired.map(({ shard, epoch }) => ({ shard, epoch, owner: id }));
    // Before the lanes have them: older news must not take them for another node's.
    for (const { shard, epoch } of acquired) this.#epochs.set(shard, epoch);
    owners.learn(news);
    await keeper.own(acquired);
    if (membership.self.id !== id) {
      keeper.drop(acquired.map(({ shard }) => shard));
      return outcome;
    }
    log.info({ shards: acquired.length, epoch: Math.max(...acquired.map(({ epoch }) => epoch)) }, "shards acquired");
    this.#options.announce(news);
    return outcome;
  }

  async #giveUp(shards: readonly ShardId[]): Promise<"done" | "later"> {
    const { membership, owners, keeper, log } = this.#options;
    const { id } = membership.self;
    // As known before: what the table says of a shard that is not here cannot change but by this node.
    const orphans = shards.filter((shard) => !keeper.owns(shard)).flatMap((shard) => owners.get(shard) ?? []);
    const held = [...(await keeper.giveUp(shards.filter((shard) => keeper.owns(shard)))), ...orphans];
    if (held.length === 0) return "later";
    await this.#release(held, id);
    log.info({ shards: held.length }, "shards given up");
    const news = held.map(({ shard, epoch }) => ({ shard, epoch, owner: null }));
    owners.learn(news);
    this.#options.announce(news);
    return "done";
  }

  /** Nothing of the shards is left here: until they are released nobody serves them. */
  async #release(held: readonly Held[], node: NodeId): Promise<void> {
    for (;;) {
      try {
        await this.#options.store.release(held, node);
        return;
      } catch (error) {
        const problem = toStarlingError(error);
        if (!problem.retryable || this.#status === "closed") throw problem;
        await new Promise<void>((resolve) => {
          this.#waiting.add(resolve);
          this.#after(this.#limits.retryMs, resolve);
        });
      }
    }
  }

  #readAgain(): void {
    void this.#read().then(() => {
      if (this.#status !== "running") return;
      this.#after(untilBeat(this.#options.clock, this.#limits.rereadMs), () => this.#readAgain());
    });
  }

  #read(): Promise<void> {
    this.#reading ??= this.#readOwners().finally(() => {
      this.#reading = null;
    });
    return this.#reading;
  }

  /** Never rejects: a store that does not answer makes this node stale, and is asked again. */
  async #readOwners(): Promise<void> {
    const { store, owners, clock, log } = this.#options;
    const begun = clock.now();
    try {
      const text = "the owners of the shards were not read";
      const rows = await withDeadline(store.readOwners(), { clock, deadlineMs: this.#limits.readMs, text });
      if (this.#status === "closed") return;
      const isFirst = this.#readAt === null;
      this.#readAt = begun;
      if (rows !== this.#rows) owners.learn(rows);
      this.#rows = rows;
      this.#options.onReading?.("fine");
      const dropped = this.#dropForeign();
      // What changed in the table is planned by then; what could not be had the last time may be had now.
      if (isFirst || dropped || this.#unsettled) this.#planSoon();
    } catch (error) {
      const { code, message } = toStarlingError(error);
      this.#options.onReading?.("trouble");
      if (this.fresh) log.warn({ code, problem: message }, "the owners of the shards could not be read");
    }
  }

  /** Whoever told: other nodes do so at once, also when PostgreSQL does not answer this one. True: there was something to drop. */
  #dropForeign(): boolean {
    const { shards, owners, keeper, log } = this.#options;
    const foreign = shards.filter((shard) => keeper.owns(shard) && !this.#isMine(owners.get(shard)));
    if (foreign.length === 0) return false;
    log.warn({ shards: foreign.length }, "shards have another owner by now: they are dropped");
    keeper.drop(foreign);
    return true;
  }

  /** The epoch tells, not the owner alone: who took the shard over may have given it up again. */
  #isMine(known: Ownership | undefined): boolean {
    const { self } = this.#options.membership;
    return known?.owner === self.id && known.epoch === this.#epochs.get(known.shard);
  }

  #wake(): void {
    for (const resolve of [...this.#waiting]) resolve();
    this.#waiting.clear();
  }

  #after(ms: number, run: () => void): void {
    if (this.#status === "closed") return;
    const cancel = this.#options.clock.after(ms, () => {
      this.#timers.delete(cancel);
      if (this.#status === "running") run();
    });
    this.#timers.add(cancel);
  }
}
