import { StarlingError } from "../proto/starling-error.ts";
import type { DataType } from "./data-type.ts";
import type { Value } from "./datapoint.ts";
import { showFound } from "./show-found.ts";

/** A data type as a part of others. */
export interface ValueType extends DataType {
  /** Whether its JSON may hold whole numbers beyond 2^53, so that reading must not round. */
  readonly exact: boolean;
  /** The checked value from parsed JSON. */
  readonly revive: (parsed: unknown) => Value;
}

/** The error of a value that does not fit, naming what was found. */
export function refusal(expected: string, found: unknown): StarlingError {
  return new StarlingError("INVALID_VALUE", `expected ${expected}, found ${showFound(found)}`);
}
