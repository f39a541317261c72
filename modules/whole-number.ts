const wholeText = /^\s*([+-]?\d+(?:_\d+)*)(?:\.0+)?\s*$/;
const textMaxLength = 64;

const int64Min = -(2n ** 63n);
const int64Max = 2n ** 63n - 1n;

/**
 * A whole number in any of DP³'s forms (reference 2.1): a number without fraction, a bigint, a boolean, or text such as
 * `" +1_000.0 "`. Beyond 2^53 the answer is a bigint; null if it is none, or was rounded before it came here.
 */
export function wholeNumber(input: unknown): number | bigint | null {
  switch (typeof input) {
    case "number":
      return Number.isSafeInteger(input) ? input + 0 : null;
    case "bigint":
      return narrow(input);
    case "boolean":
      return input ? 1 : 0;
    case "string":
      return wholeFromText(input);
    default:
      return null;
  }
}

/** Whether the number fits 64 bits. */
export function fitsInt64(value: number | bigint): boolean {
  return typeof value === "number" || (value >= int64Min && value <= int64Max);
}

/** The same number as a JS number where that is exact. */
export function narrow(value: bigint): number | bigint {
  const narrowed = Number(value);
  return Number.isSafeInteger(narrowed) ? narrowed : value;
}

function wholeFromText(text: string): number | bigint | null {
  if (text.length > textMaxLength) return null;
  const digits = wholeText.exec(text)?.[1]?.replaceAll("_", "");
  if (digits === undefined) return null;
  const value = Number(digits);
  if (Number.isSafeInteger(value)) return value + 0;
  return BigInt(digits.startsWith("+") ? digits.slice(1) : digits);
}
