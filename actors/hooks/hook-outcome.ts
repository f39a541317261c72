import type { CheckedTask } from "../../modules/datapoint.ts";
import type { StarlingError } from "../../proto/starling-error.ts";
import type { MessageChange } from "../lane/message-result.ts";

/** How a hook's run ended. */
export type HookOutcome =
  | { readonly kind: "answer"; readonly tasks: readonly CheckedTask[] }
  /** Of an allow hook; one that failed counts as allowed and says why. */
  | { readonly kind: "decision"; readonly allowed: boolean; readonly failed?: StarlingError }
  /** Of a behaviour. */
  | { readonly kind: "message"; readonly change: MessageChange; readonly tasks: readonly CheckedTask[] }
  | { readonly kind: "failed"; readonly error: StarlingError; readonly attempts: number };
