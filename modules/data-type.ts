import type { Value } from "./datapoint.ts";

/** A parsed data type: how a value of it is checked and written. */
export interface DataType {
  /** The type as written in the configuration. */
  readonly text: string;
  /** What decides whether stored values of this type still fit (reference 2, `type_info`). */
  readonly fingerprint: string;
  /** Set for `link<…>` and for arrays and sets of links. */
  readonly link: { readonly target: string; readonly mirror: string | null } | null;
  /** Checks and canonicalises; throws StarlingError INVALID_VALUE or TOO_LARGE. */
  readonly check: (input: unknown) => Value;
  /** The canonical JSON text of a checked value. */
  readonly write: (value: Value) => string;
  /** The checked value from its canonical JSON text. */
  readonly read: (json: string) => Value;
}
