import type { Segment } from "../../actors/store/store.ts";
import { createMemoryCoordinator } from "../../cluster/memory-coordinator.ts";
import type { ClientDatapoint } from "../../proto/client-batch.ts";
import type { BatchOutcome } from "../../proto/client-session.ts";
import { AckLevel } from "../../proto/gen/starling_pb.ts";
import { shardId, toShardId } from "../../proto/ids.ts";
import { createMemoryDurable } from "../support/memory-durable.ts";
import { createMemoryNetwork } from "../support/memory-links.ts";
import { createMemoryRuns, type MemoryRuns } from "../support/memory-runs.ts";
import { createMemoryStore, type MemoryStore } from "../support/memory-store.ts";
import { createRandom, type Random } from "../support/random.ts";
import { Faults } from "./call-faults.ts";
import { checkEnd, checkLog } from "./check-end.ts";
import { Checker, type Violation } from "./checker.ts";
import { ClosedSessions } from "./closed-sessions.ts";
import { FatalLoad } from "./fatal-load.ts";
import { FaultPlan } from "./faults.ts";
import { KeyedCalls } from "./keyed-calls.ts";
import { LetterReplays } from "./letter-replays.ts";
import { LinkChecks } from "./link-checks.ts";
import { drawBatch, unstorable } from "./load.ts";
import { MessageLoad } from "./message-load.ts";
import { QueueChecks } from "./queue-checks.ts";
import { Reads } from "./reads.ts";
import { Scheduler } from "./scheduler.ts";
import { SimClient } from "./sim-client.ts";
import { laneLimits, type SimNode, type SimWorld, startSimNode, systemShards, wallAt } from "./sim-node.ts";
import { TickLoad } from "./tick-load.ts";

export interface SimResult {
  readonly seed: number;
  readonly traceHash: string;
  readonly violations: readonly Violation[];
  readonly counts: SimCounts;
  readonly events: number;
  readonly simulatedMs: number;
  readonly trace: readonly string[];
}

/** What a run met; the summary adds them up. */
export type SimCounts = Readonly<Record<(typeof countNames)[number], number>>;

export const countNames = [
  "nodes",
  "datapoints",
  "faults",
  "faultsInFlight",
  "runsCutOneWay",
  "runsHalfOpen",
  "promotions",
  "epochChanges",
  "fenced",
  "unknownOutcomes",
  "repeats",
  "gaps",
  "obligations",
  "deletions",
  "lettersReplayed",
  "claimsLapsed",
  "unblocked",
  "handOffs",
  "tokenReads",
  "calls",
  "closedSessions",
  "messages",
  "ticks",
  "cuts",
  "refusedAppends",
  "busy",
  "obituaries",
  "unlinks",
  "livesOver",
  "hookDeaths",
] as const;

export const entityShards = 8;
const allShards = [
  ...Array.from({ length: entityShards }, (_, index) => shardId("entity", index)),
  ...Array.from({ length: systemShards }, (_, index) => shardId("system", index)),
];
const datapointsMin = 500;
const loadMaxMs = 120_000;
const quietWithinMs = 15_000;
/** How long at least the log is kept. */
const keptMs = 1000;
const loadFromMs = 1500;
const clients = 3;

/** One run: a cluster, its load and its faults, all drawn from the seed. To be called from outside of any promise. */
export function runSim(seed: number, options: { readonly trace?: boolean } = {}): SimResult {
  const run = new Run(seed, options.trace ?? false);
  return run.play();
}

class Run {
  readonly #seed: number;
  readonly #random: Random;
  readonly #scheduler = new Scheduler();
  readonly #checker: Checker;
  readonly #database: MemoryStore;
  readonly #faults: Faults;
  readonly #plan: FaultPlan;
  readonly #clients: SimClient[] = [];
  readonly #trace: string[] = [];
  readonly #keyed: KeyedCalls;
  readonly #closed: ClosedSessions;
  readonly #fatal: FatalLoad;
  readonly #messages: MessageLoad;
  readonly #ticks: TickLoad;
  readonly #runs: MemoryRuns;
  readonly #nodes = new Map<string, SimNode>();
  #datapoints = 0;
  #ids = 0;
  #broken = true;
  #refused = 0;
  readonly #isTraced: boolean;
  /** Client and number. */
  readonly #ackedBatches = new Set<string>();
  readonly #letters: LetterReplays;
  readonly #reads: Reads;
  readonly #links: LinkChecks;
  readonly #queues: QueueChecks;

  constructor(seed: number, trace: boolean) {
    this.#seed = seed;
    this.#random = createRandom(seed);
    const { clock } = this.#scheduler;
    const database = () => this.#database;
    this.#checker = new Checker({ database, entityShards, now: clock.now });
    this.#links = new LinkChecks(this.#checker, database);
    this.#queues = new QueueChecks({ checker: this.#checker, database, lagMaxEntries: laneLimits.lagMaxEntries });
    const say = (text: string): void => this.#say(text);
    this.#isTraced = trace;
    const network = createMemoryNetwork({ clock, random: () => this.#random.next(), latencyMs: [1, 8] });
    const coordinator = createMemoryCoordinator({ clock });
    this.#faults = new Faults({ clock, random: this.#random, node: (name) => this.#nodes.get(name) });
    this.#database = createMemoryStore(createMemoryDurable(), {
      clock,
      hold: (call, id) => this.#faults.hold(call, id),
      refuses: (body) => {
        const isRefused = body.includes(unstorable);
        if (isRefused) this.#refused++;
        return isRefused;
      },
      onCommit: (commit) => {
        if (commit.kind !== "append" && commit.kind !== "flush") say(`commit ${commit.kind} ${commit.node}`);
        this.#scheduler.note(`${commit.kind} ${commit.node}`);
        this.#checker.onCommit(commit);
        this.#ticks.onCommit(commit);
        this.#links.onCommit(commit);
        this.#queues.onCommit(commit);
      },
    });
    this.#runs = createMemoryRuns(this.#database, () => wallAt(clock.now()));
    const none = async () => [];
    const world: SimWorld = {
      scheduler: this.#scheduler,
      random: () => this.#random.next(),
      ...{ network, coordinator, database: this.#database, entityShards },
      isBroken: () => this.#broken && this.#random.next() < 0.7,
      onFatal: (node, v) => this.#fatal.onRun(node, v),
      runs: {
        ...this.#runs,
        readProgress: async (tick) => this.#ticks.progress(tick),
        ...{ readMarks: none, readNodes: none, readOwnerNodes: none },
      },
      isTicking: () => clock.now() > loadFromMs && !this.#plan.isEnough,
      isScheduling: () => !this.#plan.isOver,
      onOtherWorld: (node) => this.#plan.leaveWorld(node),
      onWrongCall: (text) => this.#checker.add("hooks", text),
      storeFault: (node, call) => this.#faults.storeFault(node, call),
      coordinatorFault: (node, call) => this.#faults.coordinatorFault(node, call),
      latencyMs: () => 0.2 + this.#random.next(),
      onBug: (text) => this.#checker.add("bug", text),
      newId: (prefix) => `${prefix}${++this.#ids}`,
      addresses: () => [...this.#nodes.keys()].map((name) => `${name}:7800`),
      trace: (node, text, fields) => {
        if (trace) say(`${node}: ${text} ${JSON.stringify(fields)}`);
      },
    };
    this.#plan = new FaultPlan({
      ...{ clock, random: this.#random, network, coordinator, faults: this.#faults, nodes: this.#nodes, say },
      ...{ promote: () => this.#database.promote(), onStuck: (text) => this.#checker.add("liveness", text) },
      start: (name) => void this.#nodes.set(name, startSimNode(world, name)),
      isLoaded: () => this.#clients.some(({ inFlight }) => inFlight > 0),
      isLoadDone: () => this.#datapoints >= datapointsMin && !this.#fatal.isOpen,
      resetClient: (index) => this.#clients[index % this.#clients.length]?.reconnect(),
    });
    this.#fatal = new FatalLoad({
      ...{ seed, clock, checker: this.#checker, database, die: (name) => this.#plan.die(name) },
    });
    this.#messages = new MessageLoad({
      ...{ clock, random: this.#random, checker: this.#checker, node: () => this.#anyNode(this.#random) },
      isOver: () => this.#plan.isOver || this.#plan.isEnough,
    });
    this.#ticks = new TickLoad({
      ...{ clock, checker: this.#checker, database, runs: this.#runs.runs },
    });
    this.#letters = new LetterReplays({
      ...{ clock, random: this.#random, database, node: () => this.#anyNode(this.#random) },
    });
    this.#reads = new Reads({
      ...{ clock, random: this.#random, checker: this.#checker, node: (random) => this.#anyNode(random) },
      alone: () => this.#nodes.get(this.#plan.alone ?? "") ?? null,
      isOver: () => this.#plan.isOver,
    });
    this.#keyed = new KeyedCalls({
      ...{ clock, random: this.#random, checker: this.#checker, node: () => this.#anyNode(this.#random) },
      isOver: () => this.#plan.isOver || this.#plan.isEnough,
      onDatapoint: () => this.#datapoints++,
    });
    this.#closed = new ClosedSessions({
      ...{ clock, random: this.#random, checker: this.#checker, node: () => this.#anyNode(this.#random) },
      isOver: () => this.#plan.isOver || this.#plan.isEnough,
    });
  }

  #say(text: string): void {
    if (this.#isTraced) this.#trace.push(`${this.#scheduler.clock.now().toFixed(2)} ${text}`);
  }

  play(): SimResult {
    const { clock } = this.#scheduler;
    const count = 3 + (this.#random.next() < 0.2 ? 1 : 0);
    for (let i = 1; i <= count; i++) this.#plan.startNode(`n${i}`);
    clock.after(loadFromMs, () => {
      for (let i = 1; i <= clients; i++) this.#clients.push(this.#startClient(`c${i}`, i));
      this.#plan.begin();
      this.#reads.begin();
      this.#letters.begin();
      this.#keyed.begin();
      this.#closed.begin();
      this.#messages.begin();
      this.#ticks.begin();
      this.#trimAgain();
    });
    const failed = () => this.#checker.violations.length > 0;
    this.#scheduler.run(loadMaxMs, () => failed() || this.#plan.isOver);
    const { faultsEndMs } = this.#plan;
    this.#broken = false;
    let checkedMs = 0;
    this.#scheduler.run(faultsEndMs + quietWithinMs, () => {
      if (failed()) return true;
      if (clock.now() < checkedMs) return false;
      checkedMs = clock.now() + 20;
      return this.#unrest() === null;
    });
    const unrest = failed() ? null : this.#unrest();
    if (!failed()) {
      checkLog(this.#checker);
      this.#closed.check();
    }
    if (unrest !== null) this.#checker.add("liveness", `${quietWithinMs} ms after the last fault ${unrest}`);
    else if (!failed()) {
      checkEnd(this.#checker, this.#database, this.#links);
      this.#messages.check(this.#database);
      this.#ticks.check();
      this.#fatal.check();
    }
    return this.#result(count);
  }

  #startClient(name: string, index: number): SimClient {
    const random = createRandom(this.#seed * 7 + index);
    const level = index === 1 ? AckLevel.DURABLE : AckLevel.PROCESSED;
    const paceMs = () => this.#plan.stretch * (60 + 200 * random.next());
    let number = 0;
    return new SimClient({
      ...{ name, level, paceMs, random: random.next, clock: this.#scheduler.clock },
      next: () => {
        if (this.#plan.isOver || (this.#plan.isEnough && this.#datapoints >= datapointsMin)) return null;
        const drawn = drawBatch(name, ++number, random.between(6, 30), random);
        const batch = this.#fatal.add(name, number, drawn);
        this.#datapoints += batch.length;
        return batch;
      },
      connect: (listener) => this.#anyNode(random)?.stream(listener) ?? null,
      onAcked: (batch, outcome) => {
        this.#scheduler.note(`acked ${name} ${outcome.number}`);
        this.#ackedBatches.add(`${name} ${outcome.number}`);
        this.#say(`acked ${name} ${outcome.number}, obligations: ${outcome.obligations}`);
        this.#checker.onAcked(batch, outcome, level === AckLevel.PROCESSED ? "processed" : "durable");
        // What waits behind an obligation shows later.
        if (level === AckLevel.PROCESSED && outcome.obligations === 0)
          this.#reads.onProcessed(accepted(batch, outcome), outcome.tokens, random);
      },
      onError: (text) => this.#checker.add("client", text),
      onBound: (text) => this.#checker.add("bounds", text),
    });
  }

  #anyNode(random: Random): SimNode | null {
    const nodes = [...this.#nodes.values()].filter(({ process }) => process.status !== "dead");
    return nodes[random.between(0, nodes.length - 1)] ?? null;
  }

  #trimAgain(): void {
    const { clock } = this.#scheduler;
    const trim = (): void => {
      this.#database.trim([...this.#database.shards.keys()], (segment) => this.#isOld(segment));
      clock.after(400 + 600 * this.#random.next(), trim);
    };
    clock.after(500, trim);
  }

  /** Whether nobody sends any part of it again: in the world partitions are kept for days. */
  #isOld({ head, at, shard, seq }: Segment): boolean {
    if (at > wallAt(this.#scheduler.clock.now()) - keptMs) return false;
    const { p } = JSON.parse(head) as { readonly p: readonly (readonly [channel: string, number: number])[] };
    const isDone = ([channel, number]: readonly [string, number]): boolean => {
      const [kind, name] = [channel.slice(0, 2), channel.slice(2)];
      if (kind === "s:") return (this.#database.shards.get(toShardId(Number(name)))?.delivered ?? 0) >= number;
      return this.#isCall(name) || this.#ackedBatches.has(`${name} ${number}`);
    };
    return p.every(isDone) && this.#checker.isAcknowledged(shard, seq);
  }

  #isCall(session: string): boolean {
    return !this.#clients.some(({ name }) => name === session);
  }

  /** What keeps the cluster from being at rest; null: nothing. */
  #unrest(): string | null {
    const client = this.#clients.find(({ isDone }) => !isDone);
    if (client !== undefined) return `${client.unacknowledged} batches of a client were not acknowledged`;
    if (this.#keyed.open > 0 || this.#messages.open > 0) return "a call has no answer";
    if (this.#closed.open > 0) return "a session is not closed, or not refused";
    const owners = new Set(
      [...this.#nodes.values()]
        .filter(({ process }) => process.status === "running")
        .map(({ membership }) => membership?.self.id),
    );
    for (const index of allShards) {
      const shard = this.#database.shards.get(index);
      if (shard === undefined || shard.owner === null || !owners.has(shard.owner))
        return `shard ${index} is owned by ${shard?.owner ?? "nobody"}`;
      const last = Math.max(shard.watermark, shard.log.at(-1)?.lastSeq ?? 0);
      if (shard.watermark < last || shard.delivered < last)
        return `shard ${index} is processed up to ${shard.watermark} and delivered up to ${shard.delivered} of ${last}`;
      if (shard.obligations.size > 0) return `shard ${index} has an obligation`;
    }
    if (this.#letters.open.length > 0) return "a dead letter is open";
    return this.#ticks.unrest ?? this.#links.unrest;
  }

  #result(nodes: number): SimResult {
    const { counts, ledger, violations } = this.#checker;
    const of = (name: string): number =>
      [...this.#nodes.values()].reduce(
        (sum, node) => sum + (node.counters[name] ?? 0),
        this.#plan.countersOfDead[name] ?? 0,
      );
    const deletions = [...ledger.lines.values()].flat().filter(({ kind }) => kind === "delete").length;
    return {
      seed: this.#seed,
      traceHash: this.#scheduler.traceHash,
      violations,
      events: this.#scheduler.events,
      simulatedMs: Math.round(this.#scheduler.clock.now()),
      trace: this.#trace,
      counts: {
        nodes,
        datapoints: this.#datapoints,
        faults: this.#plan.faults,
        faultsInFlight: this.#plan.faultsInFlight,
        runsCutOneWay: Math.min(1, this.#plan.cutsOneWay),
        runsHalfOpen: Math.min(1, this.#plan.halfOpens),
        promotions: this.#plan.promotions,
        epochChanges: counts.epochChanges,
        fenced: counts.fenced,
        unknownOutcomes: this.#faults.unknownOutcomes,
        repeats: ledger.repeats + of("repeats"),
        gaps: of("refused/GAP"),
        obligations: counts.obligations,
        deletions,
        lettersReplayed: this.#letters.replayed,
        claimsLapsed: counts.lapsed,
        unblocked: counts.unblocked,
        handOffs: of("shards_given_up"),
        tokenReads: this.#reads.answered,
        calls: this.#keyed.calls,
        closedSessions: this.#closed.refused,
        messages: ledger.messages.length,
        cuts: this.#ticks.ticks,
        ticks: [...ledger.derived.keys()].filter((key) => key.startsWith("tick ")).length,
        refusedAppends: this.#refused,
        busy: of("refused/BUSY"),
        obituaries: this.#links.obituaries,
        unlinks: [...ledger.lines.values()].flat().filter(({ change }) => change?.kind === "unlink").length,
        livesOver: of("lives_over"),
        hookDeaths: this.#fatal.deaths,
      },
    };
  }
}

function accepted(batch: readonly ClientDatapoint[], { rejections }: BatchOutcome): readonly ClientDatapoint[] {
  const refused = new Set(rejections.map(({ index }) => index));
  return batch.filter((_, index) => !refused.has(index));
}
