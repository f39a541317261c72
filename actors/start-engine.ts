import { createAilment } from "../cluster/ailment.ts";
import type { Links } from "../cluster/links/links.ts";
import type { Membership, MembershipView } from "../cluster/membership/membership.ts";
import { createOwnerTable, type OwnerTable } from "../cluster/owner-table.ts";
import { OwnershipKeeper, type OwnershipLimits } from "../cluster/ownership.ts";
import { allShards } from "../cluster/shards.ts";
import type { Clock } from "../proto/clock.ts";
import { type Epoch, groupOf, type NodeId, type ShardId } from "../proto/ids.ts";
import { StarlingError, toStarlingError } from "../proto/starling-error.ts";
import { type ClusterControl, type ControlOptions, createClusterControl, inspectSelf } from "./cluster-control.ts";
import { createEnding, type Ending, endWithinMs } from "./ending.ts";
import type { Engine, SessionTaker } from "./engine.ts";
import { withFreshReads } from "./fresh-reads.ts";
import { hookGraceMs } from "./lane/hand-off.ts";
import type { LocalEngine } from "./local-engine.ts";
import { createRouter, defaultRouterLimits, type RouterLimits } from "./peers/router.ts";
import { createSettler } from "./sessions/settler.ts";
import { type LocalEngineOptions, startLocalEngine } from "./start-local-engine.ts";
import { stateFormOf } from "./state-form.ts";
import type { AcquiredShard, Queries, Store } from "./store/store.ts";

export interface EngineOptions extends Omit<LocalEngineOptions, "identity" | "offer"> {
  /** This node's id until it has joined. */
  readonly node: NodeId;
  readonly queries: Queries;
  readonly links: Links;
  readonly systemShards: number;
  readonly ownership?: Partial<OwnershipLimits>;
  readonly routing?: Partial<RouterLimits>;
  /** Default: one that asks no database. */
  readonly ending?: Ending;
}

/** The engine of one node among others: its own shards, and the way to those of the others. */
export interface ClusterEngine extends Engine {
  /** Takes its part of the shards; resolves when it serves what it could take. `alone`: there never are other nodes. */
  join(membership: Membership, options: { readonly alone: boolean }): Promise<void>;
  /** Hands all shards over to whoever is there to have them, for `withinMs` at most; serves on meanwhile. */
  handOver(withinMs: number): Promise<void>;
  /** This node's id of now: one that was given up by the others comes back under another. */
  readonly self: NodeId;
  /** Whether a shard is here, and this node has read lately that it is: what acts by itself acts only then (R24). */
  ownsNow(shard: ShardId): boolean;
  /** Called when a session was opened on another node: an older stream of it here is to end. Returns the unsubscribe. */
  onSessionTaken(listener: SessionTaker): () => void;
  /** Where the shards of entities are, as this node knows it; without those of unknown or vanished owners. */
  owners(): readonly ShardAddress[];
  readonly control: ClusterControl;
}

/** The gRPC address of a shard's owner, as of an epoch. */
export interface ShardAddress {
  readonly shard: ShardId;
  readonly epoch: Epoch;
  readonly address: string;
}

/** Starts the engine of a node that owns no shards yet. */
export function startEngine(options: EngineOptions): ClusterEngine {
  const { store, clock, log, ending = createEnding({ clock, withinMs: endWithinMs, pings: [] }) } = options;
  let joined: Joined | null = null;
  let onward: LocalEngineOptions["offer"] = () => {};
  const identity = {
    get id() {
      return joined?.membership.self.id ?? options.node;
    },
  };
  const local = startLocalEngine({
    ...{ ...options, identity, offer: (parts, listener) => onward?.(parts, listener) },
    stateForm: () => stateFormOf(joined?.membership.view.nodes ?? []),
  });
  const owners = createOwnerTable();
  const router = createRouter({
    ...options,
    local: withFreshReads(local, () => joined?.ownership.fresh ?? false),
    owners,
    self: () => identity.id,
    inspect: (subject) => inspectSelf(controlOptions, subject),
    limits: { ...defaultRouterLimits, ...options.routing },
  });
  onward = router.offer;
  const settler = createSettler(options);
  const trouble = createTrouble(local, clock);
  const controlOptions: ControlOptions = {
    ...{ local, router, owners, queries: options.queries, counters: options.counters },
    ...{ clock, startedMs: clock.now(), model: options.model },
    ...{ entityShards: options.entityShards, systemShards: options.systemShards, problem: trouble.lasting },
    joined: () => {
      if (joined === null) return null;
      const { membership, ownership, alone, atMs } = joined;
      return { membership, alone, databaseAtMs: ownership.readAtMs ?? atMs };
    },
  };

  const join: ClusterEngine["join"] = async (membership, { alone }) => {
    const endIfAlone = (lost: readonly ShardId[]): void => {
      if (!alone) return;
      // Somebody else has begun to use the database: this node must not take the shards back.
      void ownership.close();
      log.error({ shards: lost }, "shards were taken over by another node: this one may no longer write them");
      trouble.report(new StarlingError("FENCED", `${lost.length} shards were taken over by another node`));
    };
    const keeper = {
      ...local,
      giveUp: (shards: readonly ShardId[]) => local.giveUp(shards, hookGraceMs),
      drop: (shards: readonly ShardId[]): void => {
        local.drop(shards);
        endIfAlone(shards);
      },
    };
    const health = watchStore(options, local, membership);
    const ownership = new OwnershipKeeper<AcquiredShard>({
      ...{ membership, owners, keeper, alone, clock, log },
      store: { ...store, readOwners: async () => readOwners(store, local) },
      shards: allShards({ entity: options.entityShards, system: options.systemShards }),
      announce: (news) => router.announce(news),
      onReading: (outcome) => {
        health.onReading(outcome);
        trouble.read(outcome === "fine" || ownership.fresh);
      },
      ...(options.ownership && { limits: options.ownership }),
    });
    const endings = [...watchOthers(options, membership, local), local.onLost(endIfAlone)];
    joined = { membership, ownership, endings, health, alone, atMs: clock.now() };
    await announceServing(membership, log);
    await ownership.ready();
    trouble.report(null);
  };

  return {
    ...router,
    get self() {
      return identity.id;
    },
    ownsNow: (shard) => local.owns(shard) && (joined?.ownership.fresh ?? false),
    join,
    handOver: async (withinMs) => {
      if (joined === null) return;
      const { membership, ownership } = joined;
      ending.begin();
      const begunMs = clock.now();
      const count = (): number => local.report().shards.length;
      const before = count();
      const text = "the shards were not handed over";
      const over = membership.announce("leaving").then(() => ownership.handedOver());
      await ending.wait(over, { text, withinMs }).catch((error: unknown) => {
        log.warn({ problem: String(error) }, "stopped before all shards were handed over");
      });
      const kept = count();
      log.info({ shards: before - kept, kept, tookMs: Math.round(clock.now() - begunMs) }, "shards handed over");
    },
    status: () => ({ ...router.status(), problem: trouble.problem() }),
    onHealth: trouble.on,
    control: createClusterControl(controlOptions),
    settle: settler.settle,
    owners: () => (joined === null ? [] : findAddresses(owners, joined.membership.view)),
    close: async () => {
      ending.begin();
      const late = (what: string) => (error: unknown) => log.warn({ problem: String(error) }, what);
      if (joined !== null) {
        for (const end of joined.endings.splice(0)) end();
        // What still waits for PostgreSQL then ends with the lanes.
        const text = "shards did not change hands";
        await ending.wait(joined.ownership.close(), { text }).catch(late("stopped while shards were changing hands"));
      }
      const fences = await local.close(ending);
      // What cannot be released is taken over from a node that is gone.
      const text = "shards were not released";
      const releases = Array.from({ length: options.databases }, (_, database) => {
        const held = fences.filter(({ shard }) => shard % options.databases === database);
        return ending.wait(store.release(held, identity.id), { text, database }).catch(late(text));
      });
      await Promise.all(releases);
      joined?.health.close();
      settler.close();
      router.stop();
    },
  };
}

function findAddresses(owners: OwnerTable, { nodes }: MembershipView): ShardAddress[] {
  const addresses = new Map(nodes.map(({ id, address }) => [id, address]));
  return [...owners.entries()].flatMap(({ shard, epoch, owner }) => {
    const address = owner === null ? undefined : addresses.get(owner);
    return address === undefined || groupOf(shard) !== "entity" ? [] : [{ shard, epoch, address }];
  });
}

/** Along with the owners comes the tick that runs: within a second every shard has its mark. */
async function readOwners(store: Store, { ticks }: LocalEngine) {
  const { owners, tick, endedTick } = await store.readOwners();
  ticks.learn(tick);
  ticks.end(endedTick);
  return owners;
}

/** The coordinator may be away just now; what is announced stays wanted meanwhile. */
async function announceServing(membership: Membership, log: EngineOptions["log"]): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await membership.announce("serving");
    } catch (error) {
      const { retryable, message } = toStarlingError(error);
      if (!retryable || attempt >= announceTries) throw error;
      log.warn({ problem: message }, "waiting for the coordinator");
    }
  }
}

/** Each takes some seconds when the coordinator is away. */
const announceTries = 12;

interface Joined {
  readonly membership: Membership;
  readonly alone: boolean;
  /** When it did (monotonic ms). */
  readonly atMs: number;
  readonly ownership: OwnershipKeeper<AcquiredShard>;
  readonly endings: (() => void)[];
  readonly health: { close(): void };
}

/** Links to all others; who does not answer is suspected; and what this node owned goes when the others have given it up. */
function watchOthers(
  { links, log, counters }: EngineOptions,
  membership: Membership,
  local: LocalEngine,
): (() => void)[] {
  const connect = ({ nodes }: MembershipView): void => {
    links.connect(nodes.filter(({ id }) => id !== membership.self.id));
  };
  connect(membership.view);
  return [
    membership.onView(connect),
    links.on({
      onMessage: () => {},
      onUp: (peer) => membership.clear(peer),
      // One that another node relays to is alive; and a link may be told down only because a better one took over,
      // or because the peer leaves, as the members will hear.
      onDown: (peer, problem) => {
        if (links.isUp(peer) || links.hasLeft(peer)) return;
        counters.add("suspicions");
        membership.suspect(peer, problem.message);
      },
    }),
    membership.onExpelled(async (reason) => {
      counters.add("expulsions");
      const owned = local.held().map(({ shard }) => shard);
      log.warn({ reason, shards: owned.length }, "this node was given up by the others: its shards are dropped");
      local.drop(owned);
    }),
  ];
}

/** A node whose commits or readings fail for a while says so, and gets nothing until they succeed again (R23). */
function watchStore({ clock, log }: EngineOptions, local: LocalEngine, membership: Membership) {
  const failing = new Set<"commits" | "readings">();
  const ailment = createAilment({
    clock,
    onChange: (state) => {
      if (state === "ailing") log.warn({}, "postgresql does not answer this node: it is given no shards");
      const next = state === "ailing" ? "ailing" : "serving";
      if (membership.self.state === "leaving") return;
      membership.announce(next).catch((error: unknown) => log.warn({ problem: String(error) }, "state not announced"));
    },
  });
  const report = (what: "commits" | "readings", outcome: "fine" | "trouble"): void => {
    if (outcome === "trouble") failing.add(what);
    else failing.delete(what);
    ailment.report(failing.size > 0 ? "trouble" : "fine");
  };
  const unsubscribe = local.onHealth((problem) => report("commits", problem?.code === "STORE" ? "trouble" : "fine"));
  return {
    onReading: (outcome: "fine" | "trouble"): void => report("readings", outcome),
    close: (): void => {
      unsubscribe();
      ailment.close();
    },
  };
}

/** What keeps the node from serving: trouble of its lanes, that it has not joined, or that it does not know what it owns. */
function createTrouble(local: LocalEngine, clock: Clock) {
  const listeners = new Set<(problem: StarlingError | null) => void>();
  let own: StarlingError | null = new StarlingError("UNAVAILABLE", "the node is joining the cluster");
  let lanes: StarlingError | null = null;
  let reading: StarlingError | null = null;
  let sinceMs = clock.now();
  const problem = (): StarlingError | null => own ?? lanes ?? reading;
  const change = (set: () => void): void => {
    const before = problem();
    set();
    const after = problem();
    if (before === null && after !== null) sinceMs = clock.now();
    if (before !== after) for (const listener of listeners) listener(after);
  };
  local.onHealth((next) =>
    change(() => {
      lanes = next;
    }),
  );
  return {
    problem,
    lasting: () => {
      const error = problem();
      return error === null ? null : { error, sinceMs };
    },
    report: (next: StarlingError | null): void =>
      change(() => {
        // What only a restart mends stays.
        if (own === null || own.code !== "FENCED") own = next;
      }),
    /** An idle node commits nothing that could fail: that PostgreSQL is away it sees by its readings (R24). */
    read: (isFresh: boolean): void =>
      change(() => {
        if (isFresh) reading = null;
        else reading ??= new StarlingError("STORE", "postgresql does not say which shards are this node's");
      }),
    on: (listener: (problem: StarlingError | null) => void): (() => void) => {
      listeners.add(listener);
      listener(problem());
      return () => void listeners.delete(listener);
    },
  };
}
