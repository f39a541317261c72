import type { ClientDatapoint } from "../../proto/client-batch.ts";
import type { Clock } from "../../proto/clock.ts";
import type { MemoryStore } from "../support/memory-store.ts";
import type { Checker } from "./checker.ts";
import { fatalDatapoint, flagsOf, hookIds, unstorable } from "./load.ts";

export interface FatalLoadOptions {
  readonly seed: number;
  readonly clock: Clock;
  readonly checker: Checker;
  readonly database: () => MemoryStore;
  readonly die: (node: string) => void;
}

/** In one run of so many, one to three. */
const everySeeds = 12;
const fromBatch = 3;
/** For each: one without a mark, one for each halving of some hundred seqs, three of it alone, and some that other faults cost. */
const deathsMax = 20;
const deathsMin = 3;

/** Datapoints whose hook ends each process, until they are given up (R17): of each client at most one. */
export class FatalLoad {
  readonly #options: FatalLoadOptions;
  /** Clients that are to send one. */
  readonly #toCome: Set<string>;
  /** Processes that died of a value. */
  readonly #deaths = new Map<string, number>();

  constructor(options: FatalLoadOptions) {
    this.#options = options;
    const count = options.seed % everySeeds === 0 ? 1 + ((options.seed / everySeeds) % 3) : 0;
    this.#toCome = new Set(["c1", "c2", "c3"].slice(0, count));
  }

  get deaths(): number {
    return [...this.#deaths.values()].reduce((sum, deaths) => sum + deaths, 0);
  }

  /** Whether processes still die, or are going to. */
  get isOpen(): boolean {
    return this.#toCome.size > 0 || this.#givenUp().size < this.#deaths.size;
  }

  /** A batch of a client, with its datapoint if it is time. What the database refuses would take it along. */
  add(session: string, number: number, batch: readonly ClientDatapoint[]): readonly ClientDatapoint[] {
    if (!this.#toCome.has(session) || number < fromBatch) return batch;
    if (batch.some(({ v }) => flagsOf(String(v)).includes(unstorable))) return batch;
    this.#toCome.delete(session);
    const datapoint = fatalDatapoint(session, number, batch.length);
    this.#deaths.set(String(datapoint.v), 0);
    return [...batch, datapoint];
  }

  /** The hook runs on a node: whether it ends the process, which is a moment later. */
  onRun(node: string, v: string): boolean {
    const { clock, checker, die } = this.#options;
    if (this.#givenUp().has(v)) return false;
    this.#deaths.set(v, (this.#deaths.get(v) ?? 0) + 1);
    const { size } = this.#deaths;
    if (this.deaths > deathsMax * size) checker.add("poison", `${this.deaths} processes died of ${size} datapoints`);
    clock.after(1, () => die(node));
    return true;
  }

  /** At the end of a run: nothing was given up but what processes died of, often enough. */
  check(): void {
    for (const { error, task } of this.#letters()) {
      if (!error.includes("was not run")) continue;
      const value = firstValue(task);
      const deaths = this.#deaths.get(value) ?? 0;
      if (deaths < deathsMin) this.#options.checker.add("poison", `${value} was given up after ${deaths} deaths`);
    }
  }

  /** Those that have a dead letter. */
  #givenUp(): ReadonlySet<string> {
    return new Set(this.#letters().flatMap(({ hook, task }) => (hook === hookIds.fatal ? [firstValue(task)] : [])));
  }

  #letters() {
    return [...this.#options.database().shards.values()].flatMap(({ letters }) => [...letters.values()]);
  }
}

function firstValue(task: string): string {
  return (JSON.parse(task) as { readonly datapoints: readonly { readonly v: string }[] }).datapoints[0]?.v ?? "";
}
