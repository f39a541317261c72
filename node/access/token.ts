import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import type { Grant } from "./scope.ts";

/** A token as a node knows it. */
export interface KnownToken {
  readonly name: string;
  /** SHA-256, 32 bytes. */
  readonly hash: Buffer;
  readonly grants: readonly Grant[];
  /** Unix milliseconds; null: for ever. */
  readonly expiresAt: number | null;
}

/**
 * A new token and the hash that is kept of it. A token is 256 random bits, which nobody can guess, so one round of SHA-256
 * hides it; a slow hash is for passwords that people choose, and here would cost every call its time.
 */
export function createToken(): { readonly token: string; readonly hash: Buffer } {
  const token = `${prefix}${randomBytes(32).toString("base64url")}`;
  return { token, hash: hashOf(token) };
}

/** So that scanners of secrets know one when they see it. */
const prefix = "starling_";

/** What is kept of a token. */
export function hashOf(token: string): Buffer {
  return createHash("sha256").update(token).digest();
}

/** The token with this hash; takes as long whether it is there or not, and whatever the hash. */
export function findToken(tokens: readonly KnownToken[], hash: Buffer): KnownToken | null {
  let found: KnownToken | null = null;
  for (const one of tokens) if (timingSafeEqual(one.hash, hash)) found = one;
  return found;
}
