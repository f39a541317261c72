import type { Segment } from "../../actors/store/store.ts";
import { createMemoryCoordinator } from "../../cluster/memory-coordinator.ts";
import type { ClientDatapoint } from "../../proto/client-batch.ts";
import { AckLevel } from "../../proto/gen/starling_pb.ts";
import { toSeq, toShardId } from "../../proto/ids.ts";
import type { StarlingError } from "../../proto/starling-error.ts";
import { createMemoryDurable } from "../support/memory-durable.ts";
import { createMemoryNetwork } from "../support/memory-links.ts";
import { createMemoryStore, type MemoryStore } from "../support/memory-store.ts";
import { createRandom, type Random } from "../support/random.ts";
import { checkEnd } from "./check-end.ts";
import { Checker, type Violation } from "./checker.ts";
import { FaultPlan, Faults } from "./faults.ts";
import { KeyedCalls } from "./keyed-calls.ts";
import { drawBatch, placeOf } from "./load.ts";
import { MessageLoad } from "./message-load.ts";
import { Scheduler } from "./scheduler.ts";
import { SimClient } from "./sim-client.ts";
import { type SimNode, type SimWorld, startSimNode, wallAt } from "./sim-node.ts";

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
  "messages",
] as const;

export const entityShards = 8;
const datapointsMin = 500;
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
  readonly #messages: MessageLoad;
  readonly #nodes = new Map<string, SimNode>();
  #datapoints = 0;
  #ids = 0;
  #broken = true;
  #letters = 0;
  #letterCalls = 0;
  #reads = 0;

  constructor(seed: number, trace: boolean) {
    this.#seed = seed;
    this.#random = createRandom(seed);
    const { clock } = this.#scheduler;
    const database = () => this.#database;
    this.#checker = new Checker({ database, entityShards, now: clock.now });
    const say = (text: string): void => {
      if (trace) this.#trace.push(`${clock.now().toFixed(2)} ${text}`);
    };
    const network = createMemoryNetwork({ clock, random: () => this.#random.next(), latencyMs: [1, 8] });
    const coordinator = createMemoryCoordinator({ clock });
    this.#faults = new Faults({ clock, random: this.#random, node: (name) => this.#nodes.get(name) });
    this.#database = createMemoryStore(createMemoryDurable(), {
      clock,
      hold: (call, id) => this.#faults.hold(call, id),
      onCommit: (commit) => {
        if (commit.kind !== "append" && commit.kind !== "flush") say(`commit ${commit.kind} ${commit.node}`);
        this.#scheduler.note(`${commit.kind} ${commit.node}`);
        this.#checker.onCommit(commit);
      },
    });
    const world: SimWorld = {
      scheduler: this.#scheduler,
      random: () => this.#random.next(),
      ...{ network, coordinator, database: this.#database, entityShards },
      isBroken: () => this.#broken,
      storeFault: (node, call) => this.#faults.storeFault(node, call),
      coordinatorFault: (node, call) => this.#faults.coordinatorFault(node, call),
      latencyMs: () => 0.2 + this.#random.next(),
      onBug: (text) => this.#checker.add("bug", text),
      newId: (prefix) => `${prefix}${++this.#ids}`,
      addresses: () => [...this.#nodes.keys()].map((name) => `${name}:7800`),
      trace: (node, text) => say(`${node}: ${text}`),
    };
    this.#plan = new FaultPlan({
      ...{ clock, random: this.#random, network, coordinator, faults: this.#faults, nodes: this.#nodes, say },
      start: (name) => void this.#nodes.set(name, startSimNode(world, name)),
      isLoaded: () => this.#clients.some(({ inFlight }) => inFlight > 0),
      isLoadDone: () => this.#datapoints >= datapointsMin,
      resetClient: (index) => this.#clients[index % this.#clients.length]?.reconnect(),
    });
    this.#messages = new MessageLoad({
      ...{ clock, random: this.#random, checker: this.#checker, node: () => this.#anyNode(this.#random) },
      isOver: () => this.#plan.isOver || this.#plan.isEnough,
    });
    this.#keyed = new KeyedCalls({
      ...{ clock, random: this.#random, checker: this.#checker, node: () => this.#anyNode(this.#random) },
      isOver: () => this.#plan.isOver || this.#plan.isEnough,
      onDatapoint: () => this.#datapoints++,
    });
  }

  play(): SimResult {
    const { clock } = this.#scheduler;
    const count = 3 + (this.#random.next() < 0.2 ? 1 : 0);
    for (let i = 1; i <= count; i++) this.#plan.startNode(`n${i}`);
    clock.after(loadFromMs, () => {
      for (let i = 1; i <= clients; i++) this.#clients.push(this.#startClient(`c${i}`, i));
      this.#plan.begin();
      this.#readAgain();
      this.#keyed.begin();
      this.#messages.begin();
      this.#trimAgain();
    });
    const failed = () => this.#checker.violations.length > 0;
    this.#scheduler.run(60_000, () => failed() || this.#plan.isOver);
    const { faultsEndMs } = this.#plan;
    this.#broken = false;
    this.#replayLetters();
    let checkedMs = 0;
    this.#scheduler.run(faultsEndMs + quietWithinMs, () => {
      if (failed()) return true;
      if (clock.now() < checkedMs) return false;
      checkedMs = clock.now() + 20;
      return this.#unrest() === null;
    });
    const unrest = failed() ? null : this.#unrest();
    if (unrest !== null) this.#checker.add("liveness", `${quietWithinMs} ms after the last fault ${unrest}`);
    else if (!failed()) {
      checkEnd(this.#checker, this.#database);
      this.#messages.check(this.#database);
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
        const batch = drawBatch(name, ++number, random.between(6, 30), random);
        this.#datapoints += batch.length;
        return batch;
      },
      connect: (listener) => this.#anyNode(random)?.stream(listener) ?? null,
      onAcked: (batch, outcome) => {
        this.#scheduler.note(`acked ${name} ${outcome.number}`);
        this.#checker.onAcked(batch, outcome, level === AckLevel.PROCESSED ? "processed" : "durable");
        if (level === AckLevel.PROCESSED && random.next() < 0.3) void this.#readBack(batch, outcome.tokens, random);
      },
      onError: (text) => this.#checker.add("client", text),
    });
  }

  #anyNode(random: Random): SimNode | null {
    const nodes = [...this.#nodes.values()].filter(({ process }) => process.status !== "dead");
    return nodes[random.between(0, nodes.length - 1)] ?? null;
  }

  /** A read with the token of an acknowledgement shows what was acknowledged, at any node (R24). */
  async #readBack(
    batch: readonly ClientDatapoint[],
    tokens: readonly { shard: number; epoch: number; seq: number }[],
    random: Random,
  ): Promise<void> {
    const wanted = batch.findLast(({ eid }) => String(eid).startsWith("own-"));
    const node = this.#anyNode(random);
    if (wanted === undefined || node === null) return;
    const eid = String(wanted.eid);
    const token = tokens.find(({ shard }) => shard === this.#checker.shardOf(eid));
    if (token === undefined) return this.#checker.add("token", `${wanted.v} was acknowledged without a token`);
    const atLeast = { shard: toShardId(token.shard), epoch: token.epoch as never, seq: toSeq(token.seq) };
    await this.#read(node, eid, String(wanted.v), atLeast);
  }

  async #read(
    node: SimNode,
    eid: string,
    wanted: string,
    atLeast: Parameters<SimNode["engine"]["get"]>[2],
  ): Promise<void> {
    try {
      const { engine, process } = node;
      // A frozen node answers when it wakes up.
      const record = await process.answer<Awaited<ReturnType<typeof engine.get>>>((resolve, reject) =>
        process.enter(() => void engine.get("item", eid, atLeast).then(resolve, reject)),
      );
      this.#reads++;
      const found = String(record?.view.value("x") ?? "session:0:0:");
      const [a, b] = [placeOf(found), placeOf(wanted)];
      if (a.number * 1000 + a.index < b.number * 1000 + b.index)
        this.#checker.add(
          "token",
          `a read of ${eid} at ${node.name} shows ${found}, after ${wanted} was acknowledged ${atLeast === null ? "3 s before" : "with a token"}`,
        );
    } catch (error) {
      const { code } = error as StarlingError;
      if (!["UNAVAILABLE", "BEHIND", "BUSY", "DEADLINE", "STORE", "FENCED", "MOVED"].includes(code))
        this.#checker.add("client", `a read of ${eid} failed: ${String(error)}`);
    }
  }

  /** Reads without a token are at most 3 s stale (R24). */
  #readAgain(): void {
    const { clock } = this.#scheduler;
    const acked = new Map<string, { v: string; rank: number; atMs: number }[]>();
    const look = (): void => {
      if (this.#plan.isOver) return;
      for (const value of this.#checker.processed) {
        const line = this.#checker.ledger.sent.get(value)?.[0];
        if (line === undefined || !line.eid.startsWith("own-")) continue;
        const { number, index } = placeOf(value);
        const known = acked.get(line.eid) ?? [];
        const rank = number * 1000 + index;
        if ((known.at(-1)?.rank ?? 0) < rank) acked.set(line.eid, [...known, { v: value, rank, atMs: clock.now() }]);
      }
      const old = [...acked].flatMap(([eid, all]) => {
        const last = all.findLast(({ atMs }) => atMs < clock.now() - 3500);
        return last === undefined ? [] : { eid, v: last.v };
      });
      const one = old[this.#random.between(0, Math.max(0, old.length - 1))];
      const node = this.#anyNode(this.#random);
      if (one !== undefined && node !== null) void this.#read(node, one.eid, one.v, null);
      clock.after(300, look);
    };
    look();
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
    const isDelivered = ([channel, number]: readonly [string, number]): boolean =>
      !channel.startsWith("s:") ||
      (this.#database.shards.get(toShardId(Number(channel.slice(2))))?.delivered ?? 0) >= number;
    return p.every(isDelivered) && this.#checker.isAcknowledged(shard, seq);
  }

  /** Replays every open dead letter, some of them at two nodes at once. */
  #replayLetters(): void {
    const { clock } = this.#scheduler;
    const look = (): void => {
      if (this.#letterCalls === 0) {
        for (const { id } of this.#openLetters()) {
          for (let i = 0; i < (this.#random.next() < 0.3 ? 2 : 1); i++) this.#replay(id);
        }
      }
      clock.after(200, look);
    };
    clock.after(300, look);
  }

  #openLetters() {
    return [...this.#database.shards.values()].flatMap(({ letters }) =>
      [...letters.values()].filter(({ status }) => status === "open"),
    );
  }

  #replay(id: string): void {
    const { clock } = this.#scheduler;
    const node = this.#anyNode(this.#random);
    if (node === null || node.process.status !== "running") return;
    this.#letterCalls++;
    const state: { status: "open" | "done" } = { status: "open" };
    const end = (): void => {
      if (state.status === "done") return;
      state.status = "done";
      this.#letterCalls--;
    };
    clock.after(5000, end);
    node.engine.replayDeadLetter(id).then(() => {
      this.#letters++;
      end();
    }, end);
  }

  /** What keeps the cluster from being at rest; null: nothing. */
  #unrest(): string | null {
    const client = this.#clients.find(({ isDone }) => !isDone);
    if (client !== undefined) return `${client.unacknowledged} batches of a client were not acknowledged`;
    if (this.#keyed.open > 0 || this.#messages.open > 0) return "a call has no answer";
    const owners = new Set(
      [...this.#nodes.values()]
        .filter(({ process }) => process.status === "running")
        .map(({ membership }) => membership?.self.id),
    );
    for (let index = 0; index < entityShards; index++) {
      const shard = this.#database.shards.get(toShardId(index));
      if (shard === undefined || shard.owner === null || !owners.has(shard.owner))
        return `shard ${index} is owned by ${shard?.owner ?? "nobody"}`;
      const last = Math.max(shard.watermark, shard.log.at(-1)?.lastSeq ?? 0);
      if (shard.watermark < last || shard.delivered < last)
        return `shard ${index} is processed up to ${shard.watermark} and delivered up to ${shard.delivered} of ${last}`;
      if (shard.obligations.size > 0) return `shard ${index} has an obligation`;
    }
    if (this.#openLetters().length > 0) return "a dead letter is open";
    return null;
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
        epochChanges: counts.epochChanges,
        fenced: counts.fenced,
        unknownOutcomes: this.#faults.unknownOutcomes,
        repeats: ledger.repeats + of("repeats"),
        gaps: of("refused/GAP"),
        obligations: counts.obligations,
        deletions,
        lettersReplayed: this.#letters,
        claimsLapsed: counts.lapsed,
        unblocked: counts.unblocked,
        handOffs: of("shards_given_up"),
        tokenReads: this.#reads,
        calls: this.#keyed.calls,
        messages: ledger.messages.length,
      },
    };
  }
}
