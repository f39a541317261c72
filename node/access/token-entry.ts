import { parseDuration } from "../../modules/duration.ts";
import { checkTime } from "../../modules/time-text.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import { writeGrant } from "./scope.ts";
import type { KnownToken } from "./token.ts";

/** What a token may be called. */
export const tokenNamePattern = /^[A-Za-z][\w.-]{0,99}$/;
export const tokenNameForms = "a letter, then letters, digits, `.`, `_` and `-`, at most 100";

/** What stands for a token in the file. */
export const hashForms = "sha256: and 64 hex digits";

/** A token's entry in the file of tokens, YAML. */
export function writeTokenEntry({ name, hash, grants, expiresAt }: KnownToken): string {
  const lines = [`${name}:`, `  hash: ${writeHash(hash)}`, `  scopes: [${grants.map(writeGrant).join(", ")}]`];
  if (expiresAt !== null) lines.push(`  expires: ${new Date(expiresAt).toISOString()}`);
  return lines.join("\n");
}

/** A hash as the file holds it. */
export function writeHash(hash: Buffer): string {
  return `sha256:${hash.toString("hex")}`;
}

/** Reads {@link writeHash}; null for another text. */
export function parseHash(text: string): Buffer | null {
  const digits = /^sha256:([0-9a-f]{64})$/.exec(text)?.[1];
  return digits === undefined ? null : Buffer.from(digits, "hex");
}

/** When a token ends, in Unix milliseconds: a time, or how long it lasts. Raises INVALID_ARGUMENT and INVALID_VALUE. */
export function parseTokenEnd(text: string, nowMs: number): number {
  const endMs = /^\d{4}-/.test(text) ? checkTime(text).ms : nowMs + parseDuration(text);
  if (endMs > nowMs) return endMs;
  throw new StarlingError("INVALID_ARGUMENT", `${text} is over already`);
}
