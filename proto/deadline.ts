import type { Clock } from "./clock.ts";
import { StarlingError } from "./starling-error.ts";

export interface DeadlineOptions {
  readonly clock: Clock;
  readonly deadlineMs: number;
  /** What did not happen in time: the text of the error. */
  readonly text: string;
  readonly signal?: AbortSignal;
}

/**
 * The result of `work`, or DEADLINE when it takes longer, or the signal's own error, or UNAVAILABLE, when that is aborted
 * first. The work itself
 * goes on; what it comes to after that is ignored.
 */
export async function withDeadline<T>(work: Promise<T>, options: DeadlineOptions): Promise<T> {
  const { clock, deadlineMs, signal } = options;
  let cancel = () => {};
  let onAbort = () => {};
  const lost = new Promise<never>((_, reject) => {
    cancel = clock.after(deadlineMs, () =>
      reject(new StarlingError("DEADLINE", `${options.text} within ${deadlineMs} ms`)),
    );
    onAbort = () => {
      const reason: unknown = signal?.reason;
      reject(reason instanceof StarlingError ? reason : new StarlingError("UNAVAILABLE", "the call was cancelled"));
    };
    if (signal?.aborted) onAbort();
    else signal?.addEventListener("abort", onAbort, { once: true });
  });
  try {
    return await Promise.race([work, lost]);
  } finally {
    cancel();
    signal?.removeEventListener("abort", onAbort);
    // Nobody waits for it any more if the deadline was first.
    work.catch(() => {});
  }
}
