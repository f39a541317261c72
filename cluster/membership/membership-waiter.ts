import type { Clock } from "../../proto/clock.ts";
import { StarlingError } from "../../proto/starling-error.ts";

/** Somebody who waits. */
export interface Waiter {
  resolve(): void;
  reject(problem: StarlingError): void;
}

/** A promise that is settled from outside, or rejects as `late`, or with the signal's reason when that gives it up; else UNAVAILABLE. */
export function waitFor(
  clock: Clock,
  ms: number,
  late: StarlingError,
  signal = new AbortController().signal,
): Waiter & { readonly promise: Promise<void> } {
  const settle: Waiter = { resolve: () => {}, reject: () => {} };
  const promise = new Promise<void>((resolve, reject) => Object.assign(settle, { resolve, reject }));
  const stop = clock.after(ms, () => settle.reject(late));
  const giveUp = (): void => {
    const { reason } = signal;
    settle.reject(reason instanceof StarlingError ? reason : new StarlingError("UNAVAILABLE", "it was given up"));
  };
  signal.addEventListener("abort", giveUp, { once: true });
  if (signal.aborted) giveUp();
  const end = (): void => {
    stop();
    signal.removeEventListener("abort", giveUp);
  };
  promise.then(end, end);
  return { promise, resolve: () => settle.resolve(), reject: (problem) => settle.reject(problem) };
}
