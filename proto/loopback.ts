import { isIP } from "node:net";

/** Whether an address, `host:port` or a host alone, is on this machine for certain: names but `localhost` could be anywhere. */
export function isLoopback(address: string): boolean {
  const host = hostOf(address).toLowerCase();
  if (host === "localhost" || host === "::1") return true;
  const plain = host.replace(/^::ffff:/, "");
  return isIP(plain) === 4 && plain.startsWith("127.");
}

/** The host of `host:port`, without the brackets of an IPv6 address. */
export function hostOf(address: string): string {
  const bracketed = /^\[([^\]]*)\]/.exec(address)?.[1];
  if (bracketed !== undefined) return bracketed;
  return isIP(address) === 6 ? address : address.replace(/:\d+$/, "");
}
