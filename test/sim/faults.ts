import { createMembershipKeys } from "../../cluster/membership/membership-keys.ts";
import type { MemoryCoordinator } from "../../cluster/memory-coordinator.ts";
import type { Clock } from "../../proto/clock.ts";
import { toShardId } from "../../proto/ids.ts";
import type { MemoryNetwork } from "../support/memory-links.ts";
import type { Random } from "../support/random.ts";
import type { Faults, StoreTrouble } from "./call-faults.ts";
import { coordinatorHome, prefix, type SimNode } from "./sim-node.ts";

interface PlanOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly network: MemoryNetwork;
  readonly coordinator: MemoryCoordinator;
  readonly faults: Faults;
  readonly nodes: Map<string, SimNode>;
  readonly start: (name: string) => void;
  readonly isLoaded: () => boolean;
  readonly isLoadDone: () => boolean;
  readonly resetClient: (index: number) => void;
  /** Another server takes the database over. */
  readonly promote: () => void;
  /** A node does not end that is to. */
  readonly onStuck: (text: string) => void;
  readonly say: (text: string) => void;
}

/** What a node's stop takes at most. */
const stopMaxMs = 5000;
const faultsMin = 6;
const faultsMax = 14;
const inFlightMin = 5;
/** What each end of a link takes for something else: in at least a quarter of the runs. */
const twiceAsOften = ["cut one way", "half open"];
/** Nodes end of it, all of them: where it is rare, other faults have runs of their own. */
const promotionChance = 0.02;

type Do = (name: string, forMs: number) => void;

/** Faults one after another and over each other, each while there is work in flight; at the end all is mended. */
export class FaultPlan {
  readonly #options: PlanOptions;
  readonly #busy = new Set<string>();
  readonly #open = new Set<() => void>();
  readonly #names: string[] = [];
  /** The node that is cut off from everything but clients. */
  #alone: string | null = null;
  #longUntilMs = 0;
  #joined = 0;
  #status: "waiting" | "running" | "enough" | "over" = "waiting";
  /** How much longer than usual all of it takes: what is left for seconds shows only then. */
  readonly stretch: number;
  faults = 0;
  faultsInFlight = 0;
  faultsEndMs = 0;
  cutsOneWay = 0;
  halfOpens = 0;
  promotions = 0;
  readonly countersOfDead: Record<string, number> = {};

  constructor(options: PlanOptions) {
    this.#options = options;
    this.stretch = options.random.next() < 0.1 ? 5 : 1;
  }

  /** The node that only clients reach; null: none. */
  get alone(): string | null {
    return this.#alone;
  }

  get isOver(): boolean {
    return this.#status === "over";
  }

  get isEnough(): boolean {
    return this.#status === "enough" || this.isOver;
  }

  startNode(name: string): void {
    this.#names.push(name);
    this.#options.start(name);
  }

  begin(): void {
    this.#status = "running";
    this.#options.clock.after(300 + 500 * this.#options.random.next(), () => this.#next());
  }

  #next(): void {
    const { clock, random } = this.#options;
    if (this.faults >= faultsMax || (this.faults >= faultsMin && this.faultsInFlight >= inFlightMin)) {
      if (clock.now() > this.#longUntilMs) return this.#end();
      return void clock.after(100, () => this.#next());
    }
    const long = this.stretch > 1 && this.faults === 0 ? this.#drawLong() : null;
    const kinds = [...Object.keys(this.#kinds), ...twiceAsOften];
    const promotion =
      long === null && !this.#busy.has("database") && random.next() < promotionChance ? "promote" : null;
    const kind = long?.kind ?? promotion ?? kinds[random.between(0, kinds.length - 1)] ?? "";
    const free = this.#names.filter((name) => !this.#busy.has(name));
    const name = free[random.between(0, free.length - 1)];
    if (name === undefined) return void clock.after(100, () => this.#next());
    this.#whenBusy(name, 0, () => {
      const forMs = long?.forMs ?? this.#drawMs();
      this.faults++;
      if (this.#isInFlight(name)) this.faultsInFlight++;
      this.#options.say(`fault ${kind} ${name} for ${Math.round(forMs)} ms`);
      if (kind === "promote") this.#promote(Math.min(forMs, 2000));
      else this.#kinds[kind]?.(name, forMs);
      clock.after(this.stretch * (20 + 500 * random.next() ** 2), () => this.#next());
    });
  }

  #drawMs(): number {
    const { random } = this.#options;
    const isLong = random.next() < (this.stretch > 1 ? 0.6 : 0.2);
    return isLong ? 1000 + 1000 * (4 + this.stretch) * random.next() : 30 + 600 * random.next();
  }

  /** What shows only when it lasts: a stale owner, a node that sleeps through all that it knew, a minute without etcd. */
  #drawLong(): { readonly kind: string; readonly forMs: number } {
    const { clock, random } = this.#options;
    const draw = random.next();
    const drawn =
      draw < 0.8
        ? { kind: "alone", forMs: 10_000 + 3000 * random.next() }
        : draw < 0.9
          ? { kind: "freeze", forMs: 30_000 }
          : { kind: "coordinator away", forMs: 60_000 };
    this.#longUntilMs = clock.now() + drawn.forMs;
    return drawn;
  }

  /** Waits a little until the node has work in flight: that is what a fault is to hit. */
  #whenBusy(name: string, tries: number, run: () => void): void {
    if (this.#isInFlight(name) || tries > 200) return run();
    this.#options.clock.after(1, () => this.#whenBusy(name, tries + 1, run));
  }

  #isInFlight(name: string): boolean {
    return (this.#options.nodes.get(name)?.inFlight ?? 0) > 0 && this.#options.isLoaded();
  }

  readonly #kinds: Readonly<Record<string, Do>> = {
    kill: (name, forMs) => {
      this.#kill(name);
      this.#lasting(name, forMs, () => this.#start(name));
    },
    freeze: (name, forMs) => {
      const process = this.#options.nodes.get(name)?.process;
      process?.freeze();
      this.#lasting(name, forMs, () => process?.thaw());
    },
    "cut both": (name, forMs) => this.#cut(name, forMs, "both"),
    "cut one way": (name, forMs) => {
      this.cutsOneWay++;
      this.#cut(name, forMs, this.#options.random.next() < 0.5 ? "to" : "from");
    },
    "half open": (name) => {
      this.halfOpens++;
      this.#options.network.halfOpen(`${name}:7800`, `${this.#other(name)}:7800`);
    },
    "reset link": (name) => this.#options.network.reset(`${name}:7800`, `${this.#other(name)}:7800`),
    "cut store": (name, forMs) => this.#store(name, forMs, "cut"),
    "lose answers": (name, forMs) => this.#store(name, Math.min(forMs, 400), "answers lost"),
    "slow store": (name, forMs) => this.#store(name, forMs, "slow"),
    "kill transactions": (name, forMs) => this.#store(name, Math.min(forMs, 300), "killed"),
    "stuck transaction": (name, forMs) => this.#store(name, Math.min(forMs, 100), "stuck"),
    "cut coordinator": (name, forMs) => this.#coordinator([name], forMs, "cut"),
    "lapse lease": (name) => this.#coordinator([name], 4000 + 3000 * this.#options.random.next(), "cut"),
    "coordinator away": (_, forMs) => this.#coordinator(this.#names, forMs, "cut"),
    "slow coordinator": (_, forMs) => this.#coordinator(this.#names, forMs, "slow"),
    alone: (name, forMs) => this.#isolate(name, forMs),
    pin: (name) => this.#pin(name),
    weight: (name) => this.#weight(name),
    join: (name) => this.#join(name),
    leave: (name, forMs) => this.#leave(name, forMs),
    "reset client": () => this.#options.resetClient(this.#options.random.between(0, 10)),
    // A stuck transaction and the death of who began it: only the next owner can end it.
    "stuck and killed": (name, forMs) => this.#stick(name, "stuck", 20, forMs),
    // Answers of hooks wait while all else goes on, and die with their node.
    "appends stuck and killed": (name, forMs) =>
      this.#stick(name, "appends stuck", 200 + 600 * this.#options.random.next(), forMs),
    // Between what it has read and what it makes of it another one takes over.
    "freeze coordinator": (name, forMs) => {
      const { nodes, clock } = this.#options;
      const owner = this.#names.find((one) => nodes.get(one)?.engine.ownsNow(coordinatorHome)) ?? name;
      this.#longUntilMs = Math.max(this.#longUntilMs, clock.now() + 2500);
      this.#whenCalls(owner, "readMarks", 0, () => {
        const process = nodes.get(owner)?.process;
        process?.freeze();
        this.#longUntilMs = clock.now() + 4500;
        this.#lasting(owner, forMs + 4500, () => process?.thaw());
      });
    },
    "killed while acquiring": (name, forMs) => {
      this.#pin(name);
      this.#whenCalls(name, "acquire", 0, () => {
        this.#kill(name);
        this.#lasting(name, forMs, () => this.#start(name));
      });
    },
  };

  #stick(name: string, trouble: StoreTrouble, stuckMs: number, forMs: number): void {
    const { faults, clock } = this.#options;
    let status: "stuck" | "killed" = "stuck";
    const kill = (): void => {
      if (status === "killed") return;
      status = "killed";
      faults.store.delete(name);
      this.#kill(name);
    };
    faults.store.set(name, trouble);
    clock.after(stuckMs, kill);
    this.#lasting(name, forMs + stuckMs + 80, () => {
      kill();
      this.#start(name);
    });
  }

  /** A synchronous standby takes the database over: what was committed is there; until it is, nobody reaches it. */
  #promote(forMs: number): void {
    const { faults } = this.#options;
    this.promotions++;
    this.#options.promote();
    faults.isAway = true;
    this.#lasting("database", forMs, () => {
      faults.isAway = false;
    });
  }

  /** A node has found that its database is another: it stops, and somebody starts it again. */
  leaveWorld(name: string): void {
    const { clock, random, nodes, say } = this.#options;
    const node = nodes.get(name);
    if (node === undefined) return;
    say(`${name} leaves the world`);
    const again = (): void => {
      if (nodes.get(name) === node) this.#start(name);
    };
    const { thaws } = node.process;
    let status: "stopping" | "stopped" = "stopping";
    const stopped = node.stop().catch((error: unknown) => say(`${name} stopped: ${String(error)}`));
    void stopped.then(() => {
      status = "stopped";
      clock.after(100 + 300 * random.next(), again);
    });
    clock.after(stopMaxMs, () => {
      const { process } = node;
      if (status === "stopping" && process.status === "running" && process.thaws === thaws)
        this.#options.onStuck(`${name} did not end within ${stopMaxMs} ms of finding another world`);
      again();
    });
  }

  /** A hook has ended the node's process; somebody starts it again. */
  die(name: string): void {
    const { clock, random, nodes, say } = this.#options;
    if (nodes.get(name)?.process.status === "dead") return;
    say(`${name} dies of a hook`);
    this.#kill(name);
    clock.after(100 + 300 * random.next(), () => {
      if (nodes.get(name)?.process.status === "dead") this.#start(name);
    });
  }

  #start(name: string): void {
    if (this.#options.nodes.get(name)?.process.status !== "dead") this.#kill(name);
    this.#options.start(name);
  }

  #other(name: string): string {
    const others = this.#names.filter((one) => one !== name);
    return others[this.#options.random.between(0, others.length - 1)] ?? name;
  }

  #kill(name: string): void {
    const node = this.#options.nodes.get(name);
    if (node === undefined) return;
    for (const [counter, value] of Object.entries(node.counters))
      this.countersOfDead[counter] = (this.countersOfDead[counter] ?? 0) + value;
    node.kill();
  }

  /** The node is busy until `end`, which comes in time or with the end of the plan. */
  #lasting(name: string, forMs: number, end: () => void): void {
    this.#busy.add(name);
    const finish = (): void => {
      if (!this.#open.delete(finish)) return;
      this.#busy.delete(name);
      this.#options.say(`fault ends ${name}`);
      end();
    };
    this.#open.add(finish);
    this.#options.clock.after(forMs, finish);
  }

  #cut(name: string, forMs: number, direction: "both" | "to" | "from"): void {
    const [one, other] = [`${name}:7800`, `${this.#other(name)}:7800`];
    this.#options.network.cut(one, other, direction);
    this.#lasting(name, forMs, () => this.#options.network.heal(one, other));
  }

  /** Others take over what it has, and it does not learn of it. */
  #isolate(name: string, forMs: number): void {
    const { network, faults } = this.#options;
    const others = this.#names.filter((other) => other !== name).map((other) => `${other}:7800`);
    this.#alone = name;
    for (const other of others) network.cut(`${name}:7800`, other);
    faults.store.set(name, "cut");
    faults.coordinator.set(name, "cut");
    this.#lasting(name, forMs, () => {
      this.#alone = null;
      for (const other of others) network.heal(`${name}:7800`, other);
      faults.store.delete(name);
      faults.coordinator.delete(name);
    });
  }

  #store(name: string, forMs: number, trouble: StoreTrouble): void {
    const { store } = this.#options.faults;
    store.set(name, trouble);
    this.#lasting(name, forMs, () => store.delete(name));
  }

  #coordinator(names: readonly string[], forMs: number, trouble: "cut" | "slow"): void {
    const { coordinator } = this.#options.faults;
    const some = [...names];
    for (const name of some) coordinator.set(name, trouble);
    this.#lasting(some.length > 1 ? "coordinator" : (some[0] ?? ""), forMs, () => {
      for (const name of some) coordinator.delete(name);
    });
  }

  #put(key: string, value: string): void {
    void this.#options.coordinator.commit([], [{ kind: "put", key, value, lease: null }]);
  }

  #pin(name: string): void {
    const { random } = this.#options;
    const keys = createMembershipKeys(prefix);
    for (let i = 0; i < 3; i++) this.#put(keys.pin(toShardId(random.between(0, 7))), name);
  }

  #weight(name: string): void {
    const { random } = this.#options;
    this.#put(createMembershipKeys(prefix).weight("entity", name), String([0, 0.5, 2, 5][random.between(0, 3)] ?? 1));
  }

  #join(name: string): void {
    if (this.#joined > 0) return this.#weight(name);
    this.#joined++;
    this.startNode(`n${this.#names.length + 1}`);
  }

  #leave(name: string, forMs: number): void {
    const node = this.#options.nodes.get(name);
    if (node === undefined || node.membership === null) return;
    this.#busy.add(name);
    const end = (): void => {
      if (!this.#open.delete(end)) return;
      this.#start(name);
      this.#busy.delete(name);
    };
    this.#open.add(end);
    // Where the store does not answer at the end, its process ends all the same.
    const stopped = node.stop().catch((error: unknown) => this.#options.say(`${name} stopped: ${String(error)}`));
    void stopped.then(() => this.#options.clock.after(forMs, end));
  }

  #whenCalls(name: string, call: string, tries: number, run: () => void): void {
    const node = this.#options.nodes.get(name);
    if (tries > 2000 || this.isEnough || this.#busy.has(name) || node?.process.status !== "running") return;
    if ((node.pendingCalls.get(call) ?? 0) > 0) {
      this.#busy.add(name);
      this.#options.clock.after(1, () => {
        this.#busy.delete(name);
        run();
      });
    } else this.#options.clock.after(1, () => this.#whenCalls(name, call, tries + 1, run));
  }

  /** What lasts is waited for a while, then mended. */
  #end(): void {
    const { clock, network } = this.#options;
    this.#status = "enough";
    clock.after(300, () => {
      if (!this.#options.isLoadDone()) return this.#end();
      for (const finish of [...this.#open]) finish();
      network.heal();
      this.#options.faults.store.clear();
      this.#options.faults.coordinator.clear();
      this.#options.faults.isOver = true;
      this.#options.say("faults are over");
      this.faultsEndMs = clock.now();
      this.#status = "over";
    });
  }
}
