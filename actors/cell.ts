import { type ActorSystemRef, dispatch, spawn, start, stop } from "nact";

/**
 * An actor: one message at a time, in order. This file is the only one that knows nact, and mends what it leaves open: the
 * mailbox is bounded, `stop` waits for the handler, a message to a stopped cell is refused instead of vanishing, and a
 * handler that throws (a bug: the steps do not) stops the cell and tells its owner.
 */
export interface Cell<M> {
  /** False when the mailbox is full or the cell has stopped: the sender decides what then. */
  tell(message: M): boolean;
  /** Tells the outcome of what the cell began: it is taken whatever else waits, for the cell bounds what it begins. */
  report(message: M): void;
  /** Messages that wait. */
  readonly waiting: number;
  /** Handles what waits, then stops. Idempotent. */
  stop(): Promise<void>;
}

export interface CellOptions<M> {
  readonly name: string;
  readonly mailboxMax: number;
  readonly handle: (message: M) => void;
  readonly onCrash: (error: unknown) => void;
}

export interface CellSystem {
  spawn<M>(options: CellOptions<M>): Cell<M>;
  /** Stops every cell. */
  close(): Promise<void>;
}

/** A system of cells. */
export function startCellSystem(): CellSystem {
  const system = start();
  const cells: Cell<never>[] = [];
  return {
    spawn: <M>(options: CellOptions<M>) => {
      const cell = spawnCell(system, `${options.name}-${cells.length}`, options);
      cells.push(cell as Cell<never>);
      return cell;
    },
    close: async () => {
      for (const cell of cells.splice(0).reverse()) await cell.stop();
      stop(system);
    },
  };
}

function spawnCell<M>(system: ActorSystemRef, name: string, options: CellOptions<M>): Cell<M> {
  let waiting = 0;
  let status: "running" | "stopping" | "stopped" = "running";
  let onIdle: (() => void) | null = null;
  const end = (): void => {
    status = "stopped";
    stop(ref);
    onIdle?.();
  };
  // The handler never throws to nact, whose own crash policy prints and forgets.
  const receive = (_: null, message: M): null => {
    waiting--;
    if (status === "stopped") return null;
    try {
      options.handle(message);
    } catch (error) {
      options.onCrash(error);
      end();
      return null;
    }
    if (status === "stopping" && waiting === 0) end();
    return null;
  };
  const ref = spawn(system, receive, name, { initialState: null });
  const take = (message: M): void => {
    waiting++;
    dispatch(ref, message);
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
      if (waiting === 0) {
        end();
        return Promise.resolve();
      }
      return new Promise((resolve) => {
        onIdle = resolve;
      });
    },
  };
}
