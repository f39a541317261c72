import type { ClientDatapoint } from "./client-batch.ts";
import { type ErrorCode, StarlingError } from "./starling-error.ts";

// Texts with half of a surrogate pair are refused: UTF-8 has none, so that U+FFFD would travel in its place, and two ids
// could become one. Those within JSON are escaped, and the node's to judge.

/** Raises INVALID_ARGUMENT, INVALID_EID, INVALID_VALUE. */
export function assertWellFormed({ type, eid, attr, v, src }: ClientDatapoint): void {
  assertText(type, "type", "INVALID_ARGUMENT");
  assertText(eid, "eid", "INVALID_EID");
  assertText(attr, "attr", "INVALID_ARGUMENT");
  assertText(v, "v", "INVALID_VALUE");
  assertText(src, "src", "INVALID_ARGUMENT");
}

/** All texts of a message, by the names of their fields. Raises INVALID_ARGUMENT. */
export function assertWellFormedFields(message: object): void {
  for (const [key, value] of Object.entries(message)) {
    if (typeof value === "object" && value !== null && !ArrayBuffer.isView(value)) assertWellFormedFields(value);
    else assertText(value, key, "INVALID_ARGUMENT");
  }
}

function assertText(value: unknown, key: string, code: ErrorCode): void {
  if (typeof value !== "string" || value.isWellFormed()) return;
  const shown = JSON.stringify(value.length > 80 ? `${value.slice(0, 79)}…` : value);
  throw new StarlingError(code, `${key}: expected text without a lone surrogate, found ${shown}`);
}
