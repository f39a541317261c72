import type { Value } from "./datapoint.ts";
import { valueError } from "./named-error.ts";

/** Checks each element by its type, holes included, which are undefined to it. Throws with the position of the first bad one. */
export function checkItems(type: { readonly check: (input: unknown) => Value }, input: readonly unknown[]): Value[] {
  const values = new Array<Value>(input.length);
  let i = 0;
  try {
    for (; i < input.length; i++) values[i] = type.check(input[i]);
  } catch (error) {
    throw valueError(`position ${i}`, error);
  }
  return values;
}
