import { invalidFilter } from "./filter-path.ts";
import type { FilterTest, RegexFlags } from "./snapshot-filter.ts";

/** Longest regular expression, in characters. */
export const regexMaxLength = 200;

/**
 * The tests that a regular expression of a filter means. What it demands of a value's beginning becomes a test of its own,
 * which an index answers. DP³'s `\b` is a word's boundary, which PostgreSQL writes `\y`.
 * Raises INVALID_FILTER for one that is too long; what cannot be understood PostgreSQL tells.
 */
export function regexTests(pattern: string, options: string, place: string): readonly FilterTest[] {
  if (pattern.length > regexMaxLength) {
    const found = `found ${pattern.length}`;
    throw invalidFilter(place, `a regular expression has at most ${regexMaxLength} characters: ${found}`);
  }
  if (pattern.startsWith("***")) throw invalidFilter(place, "a regular expression repeats nothing at its beginning");
  const flags = readFlags(options, place);
  const match: FilterTest = { kind: "match", pattern: translate(pattern), flags };
  const prefix = flags.i || flags.m || flags.x ? "" : prefixOf(pattern);
  if (prefix === "") return [match];
  const rest = /^(?:\.\*)?$/.test(pattern.slice(pattern.length - restLength(pattern)));
  return rest ? [{ kind: "prefix", text: prefix }] : [{ kind: "prefix", text: prefix }, match];
}

const literal = /^(?:[^\\.*+?()[\]{}|^$]|\\[^\sA-Za-z0-9])/su;
const quantifier = /^[*+?{]/;

/** Text that every match begins with. */
function prefixOf(pattern: string): string {
  return pieces(pattern)
    .map((piece) => (piece.startsWith("\\") ? piece.slice(1) : piece))
    .join("");
}

function restLength(pattern: string): number {
  return pattern.length - 1 - pieces(pattern).join("").length;
}

/** The literal characters behind a leading `^`, as they are written. */
function pieces(pattern: string): string[] {
  if (!pattern.startsWith("^") || pattern.includes("|")) return [];
  const found: string[] = [];
  let rest = pattern.slice(1);
  for (let [piece] = literal.exec(rest) ?? []; piece !== undefined; [piece] = literal.exec(rest) ?? []) {
    const after = rest.slice(piece.length);
    if (quantifier.test(after)) break;
    found.push(piece);
    rest = after;
  }
  return found;
}

function readFlags(options: string, place: string): RegexFlags {
  const known = new Set("imsx");
  const wrong = [...options].find((flag) => !known.has(flag));
  if (wrong !== undefined)
    throw invalidFilter(place, `the options are of i, m, s and x: found ${JSON.stringify(wrong)}`);
  return { i: options.includes("i"), m: options.includes("m"), s: options.includes("s"), x: options.includes("x") };
}

function translate(pattern: string): string {
  let bracket = false;
  return pattern.replace(/\\.|\[|\]/gs, (token) => {
    if (token === "[") bracket = true;
    else if (token === "]") bracket = false;
    if (bracket || !/^\\[bB]$/.test(token)) return token;
    return token === "\\b" ? "\\y" : "\\Y";
  });
}
