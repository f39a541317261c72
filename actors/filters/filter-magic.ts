import { addressRange, canonicalIpv4, canonicalIpv6, canonicalMac } from "../../modules/address.ts";
import { checkTime, timeFromMs } from "../../modules/time-text.ts";
import { wholeNumber } from "../../modules/whole-number.ts";

/**
 * DP³'s magic strings, for values that JSON cannot hold: `$$int{5}`, `$$IPv4{…}`, `$$IPv6{…}`, `$$MAC{…}`, `$$Date{…}`,
 * `$$DateTs{seconds}`, `$$IPv4Prefix{net/len}`, `$$IPv6Prefix{…}` and `$$Binary_ID{one of these}`. Here most values are plain
 * text, so `"10.0.0.1"` says the same as `"$$IPv4{10.0.0.1}"`. Others stay the text that they are.
 *
 * Null: the text within the braces is not what the name says.
 */
export function readMagic(text: string): MagicValue | null {
  const [, name = "", content = ""] = magicText.exec(text) ?? [];
  const read = Object.hasOwn(readers, name) ? readers[name] : undefined;
  return read === undefined ? { kind: "value", value: text } : read(content);
}

/** A value, or everything from `first` to `last`. */
export type MagicValue =
  | { readonly kind: "value"; readonly value: unknown }
  | { readonly kind: "range"; readonly first: string; readonly last: string };

const magicText = /^\$\$(\w+)\{(.+)\}$/s;
const exactDate = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/;
const seconds = /^-?\d+(?:\.\d+)?$/;

const readers: Readonly<Record<string, (content: string) => MagicValue | null>> = {
  int: (content) => single(wholeNumber(content)),
  IPv4: (content) => single(canonicalIpv4(content)),
  IPv6: (content) => single(canonicalIpv6(content)),
  MAC: (content) => single(canonicalMac(content)),
  Date: (content) => single(exactDate.test(content) ? readDate(content) : null),
  DateTs: (content) => single(seconds.test(content) ? readDate(timeFromMs(Number(content) * 1000)) : null),
  IPv4Prefix: (content) => rangeOf(content, 4),
  IPv6Prefix: (content) => rangeOf(content, 6),
  // There the ids of buckets hold more than the eid; here an id is an id.
  Binary_ID: (content) => (/^\$\$(?:int|IPv[46]|MAC|IPv[46]Prefix)\{/.test(content) ? readMagic(content) : null),
};

function single(value: unknown): MagicValue | null {
  return value === null ? null : { kind: "value", value };
}

function rangeOf(content: string, version: 4 | 6): MagicValue | null {
  const range = addressRange(content, version);
  return range === null ? null : { kind: "range", ...range };
}

function readDate(text: string): string | null {
  try {
    return checkTime(text).text;
  } catch {
    return null; // The caller names the place.
  }
}
