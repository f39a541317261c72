import type { Cell, CellOptions, CellSystem } from "../../actors/cell.ts";
import type { Clock } from "../../proto/clock.ts";

/**
 * One process of the simulation. Whatever reaches it from the world comes through `enter`: while it is frozen that waits, and
 * once it is dead it is lost. Between events nothing of it runs, so nothing of it runs any more when it was killed.
 */
export class SimProcess {
  readonly clock: Clock;
  readonly #world: Clock;
  #status: "running" | "frozen" | "dead" = "running";
  #held: (() => void)[] = [];
  /** How often it was frozen and went on. */
  thaws = 0;

  /** `offsetMs`: how far its monotonic clock is from the world's; no two processes begin at the same time. */
  constructor(world: Clock, offsetMs: number) {
    this.#world = world;
    this.clock = {
      now: () => world.now() + offsetMs,
      after: (ms, run) => {
        let due: (() => void) | null = run;
        const cancel = world.after(ms, () => this.enter(() => due?.()));
        return () => {
          due = null;
          cancel();
        };
      },
      soon: (run) => world.soon(() => this.enter(run)),
    };
  }

  get status(): "running" | "frozen" | "dead" {
    return this.#status;
  }

  enter(run: () => void): void {
    if (this.#status === "running") run();
    else if (this.#status === "frozen") this.#held.push(run);
  }

  freeze(): void {
    if (this.#status === "running") this.#status = "frozen";
  }

  /** What came meanwhile comes now, each by itself. */
  thaw(): void {
    if (this.#status !== "frozen") return;
    this.#status = "running";
    this.thaws++;
    for (const run of this.#held.splice(0)) this.#world.soon(() => this.enter(run));
  }

  kill(): void {
    this.#status = "dead";
    this.#held = [];
  }

  /** An answer of the world to this process: a promise that settles only while it lives. */
  answer<T>(start: (resolve: (value: T) => void, reject: (error: unknown) => void) => void): Promise<T> {
    return new Promise((resolve, reject) =>
      start(
        (value) => this.enter(() => resolve(value)),
        (error) => this.enter(() => reject(error)),
      ),
    );
  }
}

/** Cells whose messages are events of the process: one at a time, bounded, as nact's are wrapped. */
export function createSimCells(
  clock: Clock,
  onCrash: (error: unknown) => void,
): CellSystem & { readonly peak: () => number } {
  const cells: Cell<never>[] = [];
  let peak = 0;
  return {
    spawn: <M>(options: CellOptions<M>) => {
      const cell = spawnCell(
        clock,
        options,
        (waiting) => {
          peak = Math.max(peak, waiting);
        },
        onCrash,
      );
      cells.push(cell as Cell<never>);
      return cell;
    },
    close: async () => {
      for (const cell of cells.splice(0).reverse()) await cell.stop();
    },
    peak: () => peak,
  };
}

function spawnCell<M>(
  clock: Clock,
  options: CellOptions<M>,
  onWaiting: (count: number) => void,
  onCrash: (error: unknown) => void,
): Cell<M> {
  let waiting = 0;
  let status: "running" | "stopping" | "stopped" = "running";
  let onIdle = (): void => {};
  const end = (): void => {
    status = "stopped";
    onIdle();
  };
  const receive = (message: M): void => {
    waiting--;
    if (status === "stopped") return;
    try {
      options.handle(message);
    } catch (error) {
      onCrash(error);
      options.onCrash(error);
      return end();
    }
    if (status === "stopping" && waiting === 0) end();
  };
  const take = (message: M): void => {
    onWaiting(++waiting);
    clock.soon(() => receive(message));
  };
  return {
    get waiting() {
      return waiting;
    },
    tell: (message) => {
      if (status !== "running" || waiting >= options.mailboxMax) return false;
      take(message);
      return true;
    },
    report: (message) => {
      if (status === "running") take(message);
    },
    stop: () => {
      if (status === "stopped") return Promise.resolve();
      status = "stopping";
      if (waiting === 0) end();
      return status === "stopping" ? new Promise((resolve) => (onIdle = resolve)) : Promise.resolve();
    },
  };
}
