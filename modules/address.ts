import { isIPv4, isIPv6 } from "node:net";
import ipaddr from "ipaddr.js";
import { wholeNumber } from "./whole-number.ts";

const ipv4Max = 2 ** 32 - 1;
const ipv6Max = 2n ** 128n - 1n;
const addressMaxLength = 64;
const macText = /^[0-9a-f]{2}(?:(?::[0-9a-f]{2}){5}|(?:-[0-9a-f]{2}){5})$/i;

/** What an address may look like, for messages. */
export const addressForms = {
  ipv4: "an IPv4 address, four numbers of 0 to 255 without leading zeros, or a number of 32 bits",
  ipv6: "an IPv6 address, hex digits in groups with colons, or a number of 128 bits",
  mac: "a MAC address, six pairs of hex digits, all with colons or all with dashes",
} as const;

/** Dotted quad from text without leading zeros or from a number of 32 bits; null if it is none. */
export function canonicalIpv4(input: unknown): string | null {
  if (typeof input === "string") return isIPv4(input) ? input : null;
  const value = wholeNumber(input);
  if (typeof value !== "number" || value < 0 || value > ipv4Max) return null;
  return `${value >>> 24}.${(value >>> 16) & 255}.${(value >>> 8) & 255}.${value & 255}`;
}

/** Compressed lower-case text, a zone kept as it is, from any text form or from a number of 128 bits; null if it is none. */
export function canonicalIpv6(input: unknown): string | null {
  if (typeof input === "string") {
    if (input.length > addressMaxLength || !isIPv6(input)) return null;
    const [address = "", zone] = input.split("%");
    const text = ipaddr.IPv6.parse(address).toRFC5952String();
    return zone === undefined ? text : `${text}%${zone}`;
  }
  const value = wholeNumber(input);
  if (value === null || value < 0 || value > ipv6Max) return null;
  const digits = value.toString(16).padStart(32, "0");
  return ipaddr.IPv6.parse(digits.replace(/.{4}(?=.)/g, "$&:")).toRFC5952String();
}

/** Lower case with colons, from six pairs of digits with colons or with dashes; null if it is none. */
export function canonicalMac(input: unknown): string | null {
  if (typeof input !== "string" || !macText.test(input)) return null;
  return input.toLowerCase().replaceAll("-", ":");
}

/** The first and the last address of a network such as 10.0.0.0/8; null if it is none, or if bits of a host are set. */
export function addressRange(text: string, version: 4 | 6): { readonly first: string; readonly last: string } | null {
  const [, address = "", length = ""] = /^([^/%]+)\/(\d{1,3})$/.exec(text) ?? [];
  const canonical = version === 4 ? canonicalIpv4(address) : canonicalIpv6(address);
  const bits = (version === 4 ? 32 : 128) - Number(length);
  if (canonical === null || bits < 0) return null;
  const first = ipaddr
    .parse(canonical)
    .toByteArray()
    .reduce((sum, byte) => (sum << 8n) | BigInt(byte), 0n);
  const hosts = (1n << BigInt(bits)) - 1n;
  if ((first & hosts) !== 0n) return null;
  const write = version === 4 ? (value: bigint) => canonicalIpv4(Number(value)) : canonicalIpv6;
  return { first: canonical, last: write(first | hosts) ?? canonical };
}
