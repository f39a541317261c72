import { readExposition } from "../exposition.ts";

/** Looks again and again at what nodes say of their queues: none grows beyond its bound. */
export interface QueueWatch {
  /** How full the fullest one was, as a part of its bound. */
  readonly fullest: number;
  /** How often a node was asked and answered. */
  readonly readings: number;
  /** What is wrong. */
  readonly problems: readonly string[];
  close(): Promise<void>;
}

/** A node whose queues are looked at; null: nobody answers there just now. */
export interface WatchedNode {
  readonly name: string;
  readonly process: { readonly httpAddress: string | null } | null;
}

/** A queue as a node tells of it. */
export interface QueueReading {
  readonly queue: string;
  readonly used: number;
  readonly bound: number;
}

const everyMs = 500;
const answerWithinMs = 2_000;
/** Bounds refuse outside senders only (R13): what comes of what was taken still finds room. */
const overMax = 1.5;

/** Starts watching. Readings that fail, as of a node that is frozen, are left out. */
export function watchQueues(nodes: readonly WatchedNode[]): QueueWatch {
  const state = { fullest: 0, readings: 0, problems: new Map<string, string>() };
  const over = new AbortController();
  let wake: () => void = () => {};
  const read = async ({ name, process }: WatchedNode): Promise<void> => {
    const address = process?.httpAddress ?? null;
    if (address === null) return;
    const signal = AbortSignal.any([over.signal, AbortSignal.timeout(answerWithinMs)]);
    const answer = await fetch(`http://${address}/metrics`, { signal });
    const found = readQueues(await answer.text());
    state.readings++;
    for (const { queue, used, bound } of found) {
      state.fullest = Math.max(state.fullest, used / bound);
      if (used <= overMax * bound) continue;
      state.problems.set(
        `${name} ${queue}`,
        `the queue "${queue}" of ${name} has ${used} bytes, its bound is ${bound}`,
      );
    }
  };
  const running = (async () => {
    while (!over.signal.aborted) {
      await Promise.all(nodes.map((node) => read(node).catch(() => {})));
      if (over.signal.aborted) return;
      await new Promise<void>((resolve) => {
        wake = resolve;
        setTimeout(resolve, everyMs);
      });
    }
  })();
  return {
    get fullest() {
      return state.fullest;
    },
    get readings() {
      return state.readings;
    },
    get problems() {
      return [...state.problems.values()];
    },
    close: async () => {
      over.abort();
      wake();
      await running;
    },
  };
}

/** The queues of a node with their bounds, from what it says at `/metrics`. Throws when one has no bound, or there is none. */
export function readQueues(text: string): QueueReading[] {
  const metrics = new Map(readExposition(text).map(({ name, samples }) => [name, samples]));
  const bounds = new Map(
    (metrics.get("starling_queue_bound_bytes") ?? []).map(({ labels, value }) => [labels.queue, value]),
  );
  const found = (metrics.get("starling_queue_bytes") ?? []).map(({ labels, value: used }) => {
    const { queue = "" } = labels;
    const bound = bounds.get(queue);
    if (bound === undefined) throw new Error(`the queue "${queue}" has no bound`);
    return { queue, used, bound };
  });
  if (found.length === 0) throw new Error("no queue is told of");
  return found;
}
