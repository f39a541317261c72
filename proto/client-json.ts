import { StarlingError } from "./starling-error.ts";

/** JSON text of a value, with bigints as whole numbers. Raises INVALID_VALUE. */
export function jsonOf(v: unknown): string {
  const text = textOf(v);
  // What JSON has no number for it writes as null.
  if (v !== null && text?.includes("null")) assertFinite(v);
  return text;
}

/** What has a form of its own for JSON answers for it. */
function assertFinite(v: unknown): void {
  if (typeof v === "number" && !Number.isFinite(v)) {
    throw new StarlingError("INVALID_VALUE", `JSON holds no ${v}`);
  }
  if (typeof v !== "object" || v === null || "toJSON" in v) return;
  for (const item of Object.values(v)) assertFinite(item);
}

function textOf(v: unknown): string {
  try {
    return JSON.stringify(v);
  } catch {
    // A bigint within, or a cycle, which throws below as well.
    return jsonWithBigints(v, 0);
  }
}

function jsonWithBigints(v: unknown, depth: number): string {
  if (depth > 100) throw new StarlingError("INVALID_VALUE", "a value is nested more than 100 deep");
  if (typeof v === "bigint") return String(v);
  if (Array.isArray(v)) return `[${v.map((item) => jsonWithBigints(item, depth + 1)).join(",")}]`;
  if (typeof v !== "object" || v === null || v instanceof Date) return JSON.stringify(v) ?? "null";
  const members = Object.entries(v).filter(([, item]) => item !== undefined);
  return `{${members.map(([key, item]) => `${JSON.stringify(key)}:${jsonWithBigints(item, depth + 1)}`).join(",")}}`;
}
