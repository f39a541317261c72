import type { CoordinatorCall, CoordinatorFault } from "../../cluster/memory-coordinator.ts";
import type { Clock } from "../../proto/clock.ts";
import type { NodeId } from "../../proto/ids.ts";
import type { StoreWrite } from "../support/memory-store.ts";
import type { Random } from "../support/random.ts";
import type { SimNode } from "./sim-node.ts";
import type { StoreFault } from "./sim-store.ts";

interface FaultsOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly node: (name: string) => SimNode | undefined;
}

const writingCalls = new Set("append flush acquire release beginRun noteRun endRun".split(" "));

export type StoreTrouble = "cut" | "answers lost" | "slow" | "killed" | "stuck" | "appends stuck";

/** What befalls the calls of nodes now. */
export class Faults {
  readonly #options: FaultsOptions;
  readonly store = new Map<string, StoreTrouble>();
  readonly coordinator = new Map<string, "cut" | "slow">();
  /** Nobody reaches the database. */
  isAway = false;
  unknownOutcomes = 0;
  /** Nothing befalls anybody any more. */
  isOver = false;

  constructor(options: FaultsOptions) {
    this.#options = options;
  }

  storeFault(node: string, call: string): StoreFault {
    const { random } = this.#options;
    const [thereMs, backMs] = [0.5 + random.next() * 4, 0.5 + random.next() * 4];
    const trouble = this.isAway ? "cut" : this.store.get(node);
    const reset = random.next() < 0.5;
    if (trouble === "cut") return { kind: "lost", reset, thereMs, backMs };
    const writes = writingCalls.has(call);
    const rarely = writes && random.next() < 0.01 && !this.isOver;
    if (trouble === "answers lost" || rarely) {
      if (writes) this.unknownOutcomes++;
      return { kind: "unanswered", reset, thereMs, backMs };
    }
    const slow = trouble === "slow" ? 300 * random.next() : 0;
    return { kind: "none", reset: false, thereMs: thereMs + slow, backMs: backMs + slow };
  }

  /** The transaction's own time. An acquiring's second half begins only as long as its node runs. */
  async hold(call: StoreWrite, id: NodeId): Promise<"commit" | "kill"> {
    const { clock, random, node } = this.#options;
    const name = id.slice(0, id.indexOf("-"));
    const pause = (ms: number): Promise<void> => new Promise((resolve) => clock.after(ms, resolve));
    const { process } = node(name) ?? {};
    const trouble = this.store.get(name);
    await pause(
      8 + random.next() * 32 + (trouble === "slow" ? 300 * random.next() : 0) + (random.next() < 0.02 ? 100 : 0),
    );
    if (call === "acquire") {
      while (process?.status === "frozen") await pause(20);
      if (process?.status === "dead" || trouble === "cut") return "kill";
      return "commit";
    }
    if (trouble !== "stuck" && !(trouble === "appends stuck" && call === "append"))
      return trouble === "killed" ? "kill" : "commit";
    // Longer than its caller waits, who repeats it meanwhile.
    await pause(3500);
    return random.next() < 0.5 ? "commit" : "kill";
  }

  coordinatorFault(node: string, call: CoordinatorCall): CoordinatorFault {
    const { random } = this.#options;
    const trouble = this.coordinator.get(node);
    if (trouble === "cut") return { kind: "slow", beforeMs: Number.POSITIVE_INFINITY, afterMs: 0 };
    if (trouble === "slow") return { kind: "slow", beforeMs: 400 * random.next(), afterMs: 400 * random.next() };
    if (call === "hint" && random.next() < 0.1) return { kind: "refused" };
    return { kind: "slow", beforeMs: 0.2 + random.next(), afterMs: 0.2 + random.next() };
  }
}
