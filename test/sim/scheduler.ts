import { setFlagsFromString } from "node:v8";
import type { Clock } from "../../proto/clock.ts";

interface Event {
  readonly at: number;
  readonly number: number;
  run: (() => void) | null;
}

/**
 * Simulated time: a queue of events, one after another, each with all that follows from it by promises before the next one
 * begins. What happened is kept as a hash: two runs that come to the same hash have gone the same way.
 */
export class Scheduler {
  readonly clock: Clock;
  #now = 0;
  #numbers = 0;
  #hash = 0x811c9dc5;
  /** A binary heap by time, then by number. */
  readonly #heap: Event[] = [];

  constructor() {
    this.clock = {
      now: () => this.#now,
      after: (ms, run) => this.#add(this.#now + Math.max(0, ms), run),
      soon: (run) => void this.#add(this.#now, run),
    };
  }

  /** Events so far. */
  events = 0;

  get traceHash(): string {
    return (this.#hash >>> 0).toString(16).padStart(8, "0");
  }

  /** Adds a fact to the trace. */
  note(text: string): void {
    let hash = this.#hash;
    for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
    this.#hash = hash;
  }

  /** Runs events up to a time, or until `isOver` says so after one. To be called from outside of any promise. */
  run(untilMs: number, isOver: () => boolean): void {
    drain();
    while (!isOver()) {
      const next = this.#heap[0];
      if (next === undefined || next.at > untilMs) break;
      this.#pop();
      const { run } = next;
      if (run === null) continue;
      this.#now = next.at;
      this.events++;
      let hash = Math.imul(this.#hash ^ next.number, 0x01000193);
      hash = Math.imul(hash ^ Math.round(next.at * 1000), 0x01000193);
      this.#hash = hash;
      run();
      drain();
    }
  }

  #add(at: number, run: () => void): () => void {
    const event: Event = { at, number: ++this.#numbers, run };
    this.#push(event);
    return () => {
      event.run = null;
    };
  }

  #push(event: Event): void {
    const heap = this.#heap;
    let index = heap.length;
    heap.push(event);
    while (index > 0) {
      const parent = (index - 1) >>> 1;
      const above = heap[parent];
      if (above === undefined || !isBefore(event, above)) break;
      heap[index] = above;
      index = parent;
    }
    heap[index] = event;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return;
    let index = 0;
    for (;;) {
      const left = 2 * index + 1;
      let child = heap[left];
      if (child === undefined) break;
      let at = left;
      const right = heap[left + 1];
      if (right !== undefined && isBefore(right, child)) {
        child = right;
        at = left + 1;
      }
      if (!isBefore(child, last)) break;
      heap[index] = child;
      index = at;
    }
    heap[index] = last;
  }
}

function isBefore(a: Event, b: Event): boolean {
  return a.at < b.at || (a.at === b.at && a.number < b.number);
}

/** Runs `work` outside of any promise, as `Scheduler.run` asks for it. */
export function outside<T>(work: () => T): Promise<T> {
  return new Promise((resolve, reject) => {
    setImmediate(() => {
      try {
        resolve(work());
      } catch (error) {
        reject(error);
      }
    });
  });
}

/**
 * Runs all continuations of promises that are due, and theirs, to the end. A turn of the event loop does the same and takes
 * several times as long as most events; to wait for a number of promises would be a guess.
 */
const drain = createDrain();

function createDrain(): () => void {
  setFlagsFromString("--allow-natives-syntax");
  return new Function("%PerformMicrotaskCheckpoint()") as () => void;
}
