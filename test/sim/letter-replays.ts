import type { Clock } from "../../proto/clock.ts";
import type { MemoryStore } from "../support/memory-store.ts";
import type { Random } from "../support/random.ts";
import type { SimNode } from "./sim-node.ts";

export interface LetterReplaysOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly database: () => MemoryStore;
  readonly node: () => SimNode | null;
}

const patienceMs = 5000;
const lookEveryMs = 100;

/** Replays open dead letters, under faults too, some of them at two nodes at once. */
export class LetterReplays {
  readonly #options: LetterReplaysOptions;
  /** Letters of which no answer has come yet. */
  readonly #asked = new Map<string, number>();
  replayed = 0;

  constructor(options: LetterReplaysOptions) {
    this.#options = options;
  }

  /** Ids of letters that nobody has replayed. */
  get open(): readonly string[] {
    return [...this.#options.database().shards.values()].flatMap(({ letters }) =>
      [...letters.values()].flatMap(({ status, id }) => (status === "open" ? [id] : [])),
    );
  }

  begin(): void {
    const { clock, random } = this.#options;
    for (const id of this.open) {
      if (this.#asked.has(id)) continue;
      for (let i = 0; i < (random.next() < 0.3 ? 2 : 1); i++) this.#replay(id);
    }
    clock.after(lookEveryMs, () => this.begin());
  }

  #replay(id: string): void {
    const node = this.#options.node();
    if (node === null || node.process.status !== "running") return;
    this.#asked.set(id, (this.#asked.get(id) ?? 0) + 1);
    const state: { status: "open" | "done" } = { status: "open" };
    const end = (): void => {
      if (state.status === "done") return;
      state.status = "done";
      const others = (this.#asked.get(id) ?? 1) - 1;
      if (others > 0) this.#asked.set(id, others);
      else this.#asked.delete(id);
    };
    this.#options.clock.after(patienceMs, end);
    node.engine.replayDeadLetter(id).then(() => {
      this.replayed++;
      end();
    }, end);
  }
}
