import type { StarlingError } from "./starling-error.ts";

/** How much may wait for its durable acknowledgement. */
export interface WindowLimits {
  readonly batches: number;
  /** Datapoints, beyond which no third batch leaves: two may always be on their way, so that a node never waits for its client. */
  readonly items: number;
}

/** More than that would only wait in the node: what is acknowledged is no more, and all of it later. */
export const defaultWindow: WindowLimits = { batches: 8, items: 4_000 };

interface Waiting {
  readonly items: number;
  readonly go: () => void;
  readonly fail: (error: StarlingError) => void;
}

/** Places for batches, first come first served. */
export class SendWindow {
  readonly #limits: WindowLimits;
  readonly #waiting: Waiting[] = [];
  #batches = 0;
  #items = 0;

  constructor(limits: WindowLimits) {
    this.#limits = limits;
  }

  /** Whether somebody waits for a place. */
  get isWaitedFor(): boolean {
    return this.#waiting.length > 0;
  }

  /** Takes a place for a batch of so many datapoints, now (null) or when the promise resolves; rejects as {@link fail} says. */
  enter(items: number): Promise<void> | null {
    if (!this.isWaitedFor && this.#hasRoom()) {
      this.#take(items);
      return null;
    }
    return new Promise((go, fail) => this.#waiting.push({ items, go, fail }));
  }

  /** Gives the place of such a batch to whoever waits. */
  leave(items: number): void {
    this.#batches -= 1;
    this.#items -= items;
    while (this.#hasRoom()) {
      const next = this.#waiting.shift();
      if (next === undefined) return;
      this.#take(next.items);
      next.go();
    }
  }

  /** Nobody will get a place any more. */
  fail(error: StarlingError): void {
    for (const { fail } of this.#waiting.splice(0)) fail(error);
  }

  #hasRoom(): boolean {
    const { batches, items } = this.#limits;
    return this.#batches < batches && (this.#batches < 2 || this.#items < items);
  }

  #take(items: number): void {
    this.#batches += 1;
    this.#items += items;
  }
}
