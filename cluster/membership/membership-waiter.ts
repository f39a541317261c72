import type { Clock } from "../../proto/clock.ts";
import type { StarlingError } from "../../proto/starling-error.ts";

/** Somebody who waits. */
export interface Waiter {
  resolve(): void;
  reject(problem: StarlingError): void;
}

/** A promise that is settled from outside, or rejects as `late`. */
export function waitFor(clock: Clock, ms: number, late: StarlingError): Waiter & { readonly promise: Promise<void> } {
  const settle: Waiter = { resolve: () => {}, reject: () => {} };
  const promise = new Promise<void>((resolve, reject) => Object.assign(settle, { resolve, reject }));
  const stop = clock.after(ms, () => settle.reject(late));
  const end = (): void => stop();
  promise.then(end, end);
  return { promise, resolve: () => settle.resolve(), reject: (problem) => settle.reject(problem) };
}
