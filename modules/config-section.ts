import { parseDuration } from "./duration.ts";
import { isPlainObject } from "./json-value.ts";
import { nearestHint } from "./nearest-name.ts";
import { showFound } from "./show-found.ts";

/** One thing wrong in the configuration; `line` is 0 where there are no lines. */
export interface ConfigProblem {
  readonly file: string;
  readonly line: number;
  /** Dotted path of the key. */
  readonly key: string;
  readonly found: string;
  readonly allowed: string;
  readonly message: string;
}

export type ConfigPath = readonly (string | number)[];

/** A parsed YAML file that remembers where its keys stand. */
export interface ConfigFile {
  /** Path below the configuration directory, with `/`. */
  readonly file: string;
  readonly value: unknown;
  /** Line, from 1, of the key at that path or of its nearest ancestor. */
  readonly lineOf: (path: ConfigPath) => number;
}

/** A problem's line as a person reads it. */
export function writeProblem({ file, line, key, found, allowed, message }: ConfigProblem): string {
  const place = line === 0 ? file : `${file}:${line}`;
  return `${place}: ${key === "" ? "" : `${key}: `}${message} (found ${found}; allowed ${allowed})`;
}

/**
 * A map of a configuration file. Each reader takes a key, adds a problem if the value does not fit and answers its fallback;
 * `finish` reports the keys that nobody read. So every problem is found, not the first.
 */
export class ConfigSection {
  readonly #file: ConfigFile;
  readonly #path: ConfigPath;
  readonly #values: Readonly<Record<string, unknown>>;
  readonly #problems: ConfigProblem[];
  readonly #known = new Set<string>();

  constructor(
    file: ConfigFile,
    path: ConfigPath,
    values: Readonly<Record<string, unknown>>,
    problems: ConfigProblem[],
  ) {
    this.#file = file;
    this.#path = path;
    this.#values = values;
    this.#problems = problems;
  }

  /** The whole file as a section; a problem and an empty section if it is no map. */
  static ofFile(file: ConfigFile, problems: ConfigProblem[]): ConfigSection {
    if (isPlainObject(file.value)) return new ConfigSection(file, [], file.value, problems);
    const empty = new ConfigSection(file, [], {}, problems);
    empty.report(null, "the file must be a map", "keys and values", file.value);
    return empty;
  }

  get path(): ConfigPath {
    return this.#path;
  }

  keys(): string[] {
    return Object.keys(this.#values);
  }

  has(key: string): boolean {
    return Object.hasOwn(this.#values, key);
  }

  /** The raw value, and the key counts as known. */
  raw(key: string): unknown {
    this.#known.add(key);
    return this.has(key) ? this.#values[key] : undefined;
  }

  /** Text; a missing one is a problem unless there is a fallback. */
  text(key: string, fallback?: string): string {
    const value = this.raw(key);
    if (typeof value === "string") return value;
    if (value === undefined && fallback !== undefined) return fallback;
    this.report(key, missingOr(value, "must be text"), "text", value);
    return fallback ?? "";
  }

  /** One of the choices; a missing one is a problem unless there is a fallback. */
  choice<T extends string>(key: string, choices: readonly T[], fallback?: T): T | null {
    const value = this.raw(key);
    const chosen = choices.find((choice) => choice === value);
    if (chosen !== undefined) return chosen;
    if (value === undefined && fallback !== undefined) return fallback;
    const hint = typeof value === "string" ? nearestHint(value, choices) : "";
    this.report(key, `${missingOr(value, "is not one of the choices")}${hint}`, choices.join(", "), value);
    return null;
  }

  /** True or false, also as yes, no, on, off, 1, 0; required if there is no fallback. */
  bool(key: string, fallback?: boolean): boolean {
    const value = this.raw(key);
    const known = boolTexts.get(String(value).toLowerCase());
    if (known !== undefined && !Array.isArray(value)) return known;
    if (value !== undefined || fallback === undefined) {
      this.report(key, missingOr(value, "must be true or false"), "true, false", value);
    }
    return fallback ?? false;
  }

  /** A whole number within bounds. */
  int(key: string, fallback: number, bounds: { readonly min: number; readonly max: number }): number {
    const value = this.raw(key);
    if (value === undefined) return fallback;
    if (typeof value === "number" && Number.isInteger(value) && value >= bounds.min && value <= bounds.max)
      return value;
    this.report(key, "must be a whole number within bounds", `${bounds.min} to ${bounds.max}`, value);
    return fallback;
  }

  /** A duration in ms; null only where the fallback is null; required if there is no fallback. */
  duration(key: string, fallback?: number): number;
  duration(key: string, fallback: null): number | null;
  duration(key: string, fallback?: number | null): number | null {
    const value = this.raw(key);
    if (value === undefined && fallback !== undefined) return fallback;
    if (value === null && fallback === null) return null;
    if (value !== undefined) {
      try {
        return parseDuration(value);
      } catch {
        // Reported below, with the place.
      }
    }
    this.report(key, missingOr(value, "is not a duration"), durationHint, value);
    return fallback ?? 0;
  }

  /** A list of texts. */
  textList(key: string, fallback: readonly string[] = []): readonly string[] {
    const value = this.raw(key);
    if (value === undefined) return fallback;
    if (Array.isArray(value) && value.every((item) => typeof item === "string")) return value;
    this.report(key, "must be a list of texts", "a list of texts", value);
    return fallback;
  }

  /** A map below this one; null if it is missing (a problem if required) or no map. */
  section(key: string, need: "required" | "optional" = "optional"): ConfigSection | null {
    const value = this.raw(key);
    if (isPlainObject(value)) return new ConfigSection(this.#file, [...this.#path, key], value, this.#problems);
    if (value !== undefined || need === "required") this.report(key, missingOr(value, "must be a map"), "a map", value);
    return null;
  }

  /** The sections below, one per key; what is no map is a problem. */
  sections(): [string, ConfigSection][] {
    return this.keys().flatMap((key) => {
      const section = this.section(key, "required");
      return section === null ? [] : [[key, section] as [string, ConfigSection]];
    });
  }

  /** Adds a problem at a key, or at the section itself. */
  report(key: string | null, message: string, allowed: string, found: unknown): void {
    const path = key === null ? this.#path : [...this.#path, key];
    this.#problems.push({
      file: this.#file.file,
      line: this.#file.lineOf(path),
      key: path.join("."),
      found: showFound(found),
      allowed,
      message,
    });
  }

  /** Reports every key that no reader asked for. */
  finish(): void {
    for (const key of this.keys()) {
      if (this.#known.has(key)) continue;
      this.report(key, `unknown key${nearestHint(key, this.#known)}`, [...this.#known].join(", "), this.#values[key]);
    }
  }
}

const boolTexts = new Map([
  ...["true", "yes", "on", "y", "t", "1"].map((text) => [text, true] as const),
  ...["false", "no", "off", "n", "f", "0"].map((text) => [text, false] as const),
]);
const durationHint = 'e.g. 30s, 5m, 2h, 7d, 0, a number of seconds, "HH:MM:SS", PT5M';

function missingOr(value: unknown, otherwise: string): string {
  return value === undefined ? "is missing" : otherwise;
}
