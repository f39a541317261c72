import { StarlingError } from "../proto/starling-error.ts";
import { addressForms, canonicalIpv4, canonicalIpv6, canonicalMac } from "./address.ts";
import type { Eid } from "./datapoint.ts";
import type { EidType, EntitySpec } from "./model.ts";
import { showFound } from "./show-found.ts";
import { eidMaxBytes, fitsBytes, isStorableText } from "./value-limits.ts";
import { fitsInt64, narrow, wholeNumber } from "./whole-number.ts";

/**
 * The typed id from what the world sends: text, or a number of 64 bits for `int`. Addresses become canonical text.
 * Throws INVALID_EID and TOO_LARGE; a caller that knows the entity type adds it to the message.
 */
export function parseEid(type: EidType, input: unknown): Eid {
  if (type === "string") return stringEid(input);
  const eid = typedEid(type, input);
  if (eid === null) throw new StarlingError("INVALID_EID", `expected ${eidForms[type]}, found ${showFound(input)}`);
  return eid;
}

/** The canonical text of a typed id: what routes, keys and stands in the database. */
export function eidText(entity: EntitySpec, eid: Eid): string {
  return entity.idDataType === "int" ? String(eid) : (eid as string);
}

/** The typed id from its canonical text. */
export function readEid(entity: EntitySpec, text: string): Eid {
  if (entity.idDataType !== "int") return text;
  const value = Number(text);
  return Number.isSafeInteger(value) ? value : narrow(BigInt(text));
}

/** The canonical text from what the world sends; throws as `parseEid` does. */
export function canonicalEid(entity: EntitySpec, input: unknown): string {
  return eidText(entity, parseEid(entity.idDataType, input));
}

const eidForms = {
  int: "a whole number of 64 bits",
  ...addressForms,
} as const;

function stringEid(input: unknown): string {
  if (typeof input !== "string") {
    throw new StarlingError("INVALID_EID", `expected text, found ${showFound(input)}`);
  }
  // An omitted id reads as an empty one on the wire, and pages of entities begin behind it.
  if (input === "") throw new StarlingError("INVALID_EID", "an eid has at least one character");
  if (!fitsBytes(input, eidMaxBytes)) {
    throw new StarlingError(
      "TOO_LARGE",
      `an eid takes at most ${eidMaxBytes} bytes, found ${Buffer.byteLength(input)}`,
    );
  }
  if (!isStorableText(input)) {
    throw new StarlingError("INVALID_EID", `an eid holds no U+0000 and no lone surrogate: found ${showFound(input)}`);
  }
  return input;
}

function typedEid(type: keyof typeof eidForms, input: unknown): Eid | null {
  switch (type) {
    case "int": {
      const value = wholeNumber(input);
      return value !== null && fitsInt64(value) ? value : null;
    }
    case "ipv4":
      return canonicalIpv4(input);
    case "ipv6":
      return canonicalIpv6(input);
    case "mac":
      return canonicalMac(input);
  }
}
