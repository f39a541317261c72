const SHOWN_MAX = 80;

/** What was found, for a message: JSON where it can be, shortened to 80 characters. */
export function showFound(found: unknown): string {
  const text = shown(found);
  return text.length > SHOWN_MAX ? `${text.slice(0, SHOWN_MAX).replace(/[\ud800-\udbff]$/, "")}…` : text;
}

function shown(found: unknown): string {
  switch (typeof found) {
    case "undefined":
      return "nothing";
    case "bigint":
    case "number":
      return String(found);
    case "string":
      return JSON.stringify(found.slice(0, SHOWN_MAX + 1));
    case "function":
    case "symbol":
      return `a ${typeof found}`;
    default:
      break;
  }
  if (Array.isArray(found)) return `a list of ${found.length}`;
  if (found instanceof Date) return Number.isNaN(found.getTime()) ? "an invalid Date" : found.toISOString();
  if (typeof found === "object" && found !== null) {
    return `an object with ${showNames(Object.keys(found))}`;
  }
  return String(found);
}

function showNames(names: readonly string[]): string {
  if (names.length === 0) return "no keys";
  // As JSON has it, but for the quotes: a name may hold characters that no message should.
  const some = names.slice(0, 4).map((name) => JSON.stringify(name.slice(0, 20)).slice(1, -1));
  return `the keys ${some.join(", ")}${names.length > 4 ? ", …" : ""}`;
}
