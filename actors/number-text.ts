/**
 * Text of numbers that are written for every datapoint, several times faster than the engine's own for numbers beyond 31
 * bits: times in Unix ms and 32-bit hashes.
 */
export function timeText(ms: number): string {
  if (!(ms >= 1e9 && ms < 1e15 && Number.isInteger(ms))) return String(ms);
  const high = Math.floor(ms / 1e6);
  return high + String(1e6 + (ms - high * 1e6)).slice(1);
}

const hex16: readonly string[] = Array.from({ length: 65_536 }, (_, i) => i.toString(16).padStart(4, "0"));

/** Eight hex digits of an unsigned 32-bit number. */
export function hex32(value: number): string {
  return `${hex16[value >>> 16]}${hex16[value & 0xffff]}`;
}
