import { stat } from "node:fs/promises";
import { atBeat, type Clock } from "./clock.ts";
import { withDeadline } from "./deadline.ts";
import { type StarlingError, toStarlingError } from "./starling-error.ts";

/**
 * What some files say, read again when they change.
 *
 * 1. What cannot be read or used keeps what was read before; it is tried again until it can be, and told once.
 * 2. A reading begins with a look at the files: a change while they are read is seen by the next look.
 * 3. One reading at a time; who asks for one meanwhile waits for one that began after the question.
 */
export interface WatchedFiles<T> {
  /** As read last. */
  readonly value: T;
  /** Called after each reading that was good. Returns the unsubscribing. */
  onChange(listener: (value: T) => void): () => void;
  /** Reads now, whether anything changed or not. What goes wrong is told by `onProblem`. */
  reload(): Promise<void>;
  /** Reads no more. Idempotent. */
  close(): void;
}

export interface WatchOptions<T> {
  /** Looked at about every `everyMs`; one that is missing is not a problem by itself. */
  readonly paths: readonly string[];
  /** Reads and checks. */
  readonly read: () => Promise<T>;
  readonly clock: Clock;
  readonly everyMs?: number;
  /** Told when what was wrong changes. */
  readonly onProblem?: (problem: StarlingError) => void;
}

const readWithinMs = 10_000;

/** Reads the files and watches them. Raises what `read` raises, and DEADLINE. */
export async function watchFiles<T>(options: WatchOptions<T>): Promise<WatchedFiles<T>> {
  const marks = await marksOf(options.paths);
  return new Watch(options, await readWithin(options), marks);
}

class Watch<T> implements WatchedFiles<T> {
  readonly #options: WatchOptions<T>;
  readonly #listeners = new Set<(value: T) => void>();
  #value: T;
  /** Of the last reading that was good. */
  #marks: string;
  #problem = "";
  #reading: Promise<void> | null = null;
  #status: "open" | "closed" = "open";
  #cancelTimer = () => {};

  constructor(options: WatchOptions<T>, value: T, marks: string) {
    this.#options = options;
    this.#value = value;
    this.#marks = marks;
    this.#lookLater();
  }

  get value(): T {
    return this.#value;
  }

  onChange(listener: (value: T) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  async reload(): Promise<void> {
    await this.#reading;
    this.#reading ??= this.#read().finally(() => {
      this.#reading = null;
    });
    await this.#reading;
  }

  close(): void {
    this.#status = "closed";
    this.#cancelTimer();
    this.#listeners.clear();
  }

  #lookLater(): void {
    const { clock, everyMs = 2_000 } = this.#options;
    this.#cancelTimer = atBeat(clock, everyMs, () => void this.#look());
  }

  async #look(): Promise<void> {
    // Marks are of good readings only: what was wrong is tried again.
    if ((await marksOf(this.#options.paths)) !== this.#marks) await this.reload();
    if (this.#status === "open") this.#lookLater();
  }

  async #read(): Promise<void> {
    const marks = await marksOf(this.#options.paths);
    try {
      const value = await readWithin(this.#options);
      if (this.#status === "closed") return;
      this.#value = value;
      this.#marks = marks;
      this.#problem = "";
    } catch (error) {
      return this.#tell(toStarlingError(error, "CONFIG"));
    }
    for (const listener of this.#listeners) listener(this.#value);
  }

  #tell(problem: StarlingError): void {
    if (this.#status === "closed" || problem.message === this.#problem) return;
    this.#problem = problem.message;
    this.#options.onProblem?.(problem);
  }
}

function readWithin<T>({ read, clock }: WatchOptions<T>): Promise<T> {
  return withDeadline(read(), { clock, deadlineMs: readWithinMs, text: "the files could not be read" });
}

/** Changes when a file does, is replaced, or goes. */
async function marksOf(paths: readonly string[]): Promise<string> {
  const marks = paths.map((path) =>
    stat(path).then(
      ({ mtimeMs, size, ino }) => `${mtimeMs} ${size} ${ino}`,
      () => "none", // reading it says what is wrong
    ),
  );
  return (await Promise.all(marks)).join(", ");
}
