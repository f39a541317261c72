import type { Hook } from "../../modules/hook.ts";
import type { FindEntity, LinkTree } from "../../modules/linked-view.ts";
import type { EntitySpec } from "../../modules/model.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import {
  changeMark,
  type EntityAt,
  entityKey,
  readEntityAt,
  type SnapshotTexts,
  writeSnapshot,
} from "../history/entity-at.ts";
import { graphPlanOf } from "./correlation-call.ts";
import { Live } from "./live-entity.ts";
import type { HookYield } from "./snapshot-call.ts";
import type { Component } from "./snapshot-component.ts";
import { dropEmptyLinks, runHook, type SnapshotScope } from "./snapshot-hooks.ts";
import { setMirrors, targetsOf } from "./snapshot-link.ts";

/*
 * A component whose records do not fit into memory together: hook by hook, in the order of the graph, over pieces of the entities
 * of its type, each with what the hook's paths reach from there. Records are read for every piece, and written back with what
 * was changed.
 *
 * 1. A piece sees what hooks before this one changed, and nothing of what this one changes: changes stand behind the record, each
 *    with the level of its hook, and are applied for later levels only. So bodies are those that the whole component would have.
 * 2. Pieces come in the order of the keys, so of two changes of one attribute the same one stands.
 * 3. Records are never overwritten, only what stands behind them: who begins anew, with another attempt, begins with the same.
 */

/** Where the records of a component are. */
export interface SnapshotSpill {
  /** The texts, each with the changes that were last written, in the order of the keys; null: there is no such entity. */
  read(keys: readonly string[]): Promise<readonly (string | null)[]>;
  /** Replaces what stands behind texts that were read. */
  write(records: readonly SpilledChanges[]): Promise<void>;
}

export interface SpilledChanges {
  readonly key: string;
  readonly changes: string;
}

export interface SpillOptions {
  readonly spill: SnapshotSpill;
  /** No other attempt at this component has the same one; holds no blank. */
  readonly attempt: string;
  /** Roughly what the records of a piece may take in memory. */
  readonly bytesMax: number;
  /** See `LinkGraph`. */
  readonly sourcesOf: (key: string) => ReadonlyMap<string, readonly string[]>;
  /** Takes bodies, piece by piece, in the order of their keys. */
  readonly onBodies: (bodies: ReadonlyMap<string, SnapshotTexts>) => Promise<void>;
}

/**
 * Computes a component in pieces: the same bodies as `computeSnapshots`. Raises TOO_LARGE where the records that a hook reaches
 * from a single entity are too many; rejects with the signal's reason.
 */
export async function computeSpilled(
  scope: SnapshotScope,
  component: Component,
  options: SpillOptions,
): Promise<HookYield> {
  const done: HookYield = { tasks: [], report: new Map() };
  const task = new Spilled(scope, component, options);
  if (!scope.keepEmpty) await task.dropEmptyLinks();
  for (const [level, hook] of scope.hooks.correlation.entries()) await task.runHook(level, hook, done);
  await task.writeBodies();
  return done;
}

/** A text takes so many bytes for each of its characters: itself, and the values that are made of it. */
const bytesPerChar = 4;
const keysMax = 256;
const firstPiece = 32;

interface Loaded {
  readonly live: Live;
  /** What stood behind it, without what other attempts left. */
  readonly changes: string;
}

type Piece = Map<string, Loaded>;

class Spilled {
  readonly #scope: SnapshotScope;
  readonly #component: Component;
  readonly #options: SpillOptions;
  readonly #members: ReadonlySet<string>;

  constructor(scope: SnapshotScope, component: Component, options: SpillOptions) {
    this.#scope = scope;
    this.#component = component;
    this.#options = options;
    this.#members = new Set(component);
  }

  async dropEmptyLinks(): Promise<void> {
    const existing = new Set<string>();
    const none: LinkTree = new Map();
    for await (const { piece } of this.#pieces(this.#component, none, beforeAll, "finding who exists")) {
      for (const key of piece.keys()) existing.add(key);
    }
    for await (const { piece } of this.#pieces(this.#component, none, beforeAll, "leaving out links")) {
      for (const { live } of piece.values()) dropEmptyLinks(this.#scope, live, (key) => existing.has(key));
      await this.#writeBack(piece, beforeAll);
    }
  }

  async runHook(level: number, hook: Hook, done: HookYield): Promise<void> {
    const keys = this.#component.filter((key) => key.startsWith(`${hook.type}\t`));
    for await (const { piece, own } of this.#pieces(keys, graphPlanOf(hook).tree, level, `hook ${hook.id}`)) {
      const find: FindEntity<Live> = (type, eid) => piece.get(entityKey(type, String(eid)))?.live;
      const entities = own.flatMap((key) => piece.get(key)?.live ?? []);
      await runHook(this.#scope, hook, { entities, find }, done);
      await this.#writeBack(piece, level);
    }
  }

  async writeBodies(): Promise<void> {
    for await (const { piece } of this.#pieces(this.#component, new Map(), afterAll, "writing snapshots")) {
      const bodies = [...piece].filter(([, { live }]) => live.at.spec.snapshot);
      await this.#options.onBodies(new Map(bodies.map(([key, { live }]) => [key, writeSnapshot(live.at)])));
    }
  }

  /** Entities with what their links reach, as many at a time as fit. */
  async *#pieces(
    keys: readonly string[],
    tree: LinkTree,
    level: number,
    what: string,
  ): AsyncGenerator<{ readonly piece: Piece; readonly own: readonly string[] }> {
    const { bytesMax } = this.#options;
    let size = firstPiece;
    for (let from = 0; from < keys.length; ) {
      this.#scope.signal.throwIfAborted();
      const own = keys.slice(from, from + size);
      const piece: Piece = new Map();
      const bytes = await this.#load(piece, own, tree, level);
      if (bytes > bytesMax && own.length > 1) {
        size = Math.ceil(own.length / 2);
        continue;
      }
      if (bytes > bytesMax) {
        const name = own[0]?.replace("\t", " ");
        throw new StarlingError(
          "TOO_LARGE",
          `${what} takes more than ${bytesMax} bytes for ${name} and what it is linked to`,
        );
      }
      yield { piece, own };
      from += own.length;
      if (bytes < bytesMax / 4) size *= 2;
    }
  }

  /** Reads entities, and those that their links lead to; ends early when it is too much. Returns roughly their bytes. */
  async #load(piece: Piece, keys: readonly string[], tree: LinkTree, level: number): Promise<number> {
    let bytes = 0;
    let front: readonly (readonly [string, LinkTree])[] = keys.map((key) => [key, tree]);
    const seen = new Map<LinkTree, Set<string>>();
    while (front.length > 0) {
      const wanted = [...new Set(front.map(([key]) => key))].filter((key) => this.#members.has(key) && !piece.has(key));
      for (let from = 0; from < wanted.length && bytes <= this.#options.bytesMax; from += keysMax) {
        bytes += await this.#read(piece, wanted.slice(from, from + keysMax), level);
      }
      if (bytes > this.#options.bytesMax) return bytes;
      front = front.flatMap(([key, at]) => {
        const known = seen.get(at) ?? new Set();
        seen.set(at, known);
        const live = piece.get(key)?.live;
        if (live === undefined || known.has(key)) return [];
        known.add(key);
        return nextOf(this.#scope, live, at);
      });
    }
    return bytes;
  }

  async #read(piece: Piece, keys: readonly string[], level: number): Promise<number> {
    const { model } = this.#scope;
    const { spill, attempt, sourcesOf } = this.#options;
    const texts = await spill.read(keys);
    let bytes = 0;
    for (const [i, key] of keys.entries()) {
      const spec = model.entities.get(key.slice(0, key.indexOf("\t")));
      const text = texts[i] ?? null;
      if (spec === undefined || text === null) continue;
      const [base = "", ...changes] = text
        .split(changeMark)
        .filter((part, at) => at === 0 || part.startsWith(`${attempt} `));
      const at = readEntityAt(spec, key.slice(key.indexOf("\t") + 1), base);
      setMirrors(model, at, sourcesOf(key));
      for (const change of changes) applyLine(at, change, level);
      piece.set(key, { live: new Live(at), changes: changes.map((change) => changeMark + change).join("") });
      bytes += bytesPerChar * text.length;
    }
    return bytes;
  }

  async #writeBack(piece: Piece, level: number): Promise<void> {
    const changed = [...piece].flatMap(([key, { live, changes }]) => {
      const line = writeLine(live);
      return line === null
        ? []
        : [{ key, changes: `${changes}${changeMark}${this.#options.attempt} ${level} ${line}` }];
    });
    for (let from = 0; from < changed.length; from += keysMax) {
      await this.#options.spill.write(changed.slice(from, from + keysMax));
    }
  }
}

const beforeAll = -1;
const afterAll = Number.POSITIVE_INFINITY;

/** The targets of an entity's links. */
function nextOf({ model }: SnapshotScope, { values }: Live, tree: LinkTree): [string, LinkTree][] {
  return [...tree].flatMap(([attr, branch]) => {
    const spec: EntitySpec | undefined = model.entities.get(branch.target);
    const value = values[attr];
    if (spec === undefined || value === undefined) return [];
    return [...targetsOf(spec, value as never)].map((eid): [string, LinkTree] => [
      entityKey(branch.target, eid),
      branch.tree,
    ]);
  });
}

/** What was set of an entity, as JSON text: attribute, text of the value, text of the confidence; null: nothing was. */
function writeLine({ at, changed }: Live): string | null {
  const parts = [...changed].map(({ id, index }) => [id, at.texts[index] ?? null, at.confidences[index] ?? null]);
  return parts.length === 0 ? null : JSON.stringify(parts);
}

/** Applies `ATTEMPT LEVEL JSON` if its level comes before. */
function applyLine({ spec, texts, confidences }: EntityAt, line: string, level: number): void {
  const [, of = "", json = "[]"] = /^\S+ (\S+) (.*)$/s.exec(line) ?? [];
  if (Number(of) >= level) return;
  for (const [attr, text, c] of JSON.parse(json) as [string, string | null, string | null][]) {
    const attribute = spec.attributes.get(attr);
    if (attribute === undefined) continue;
    texts[attribute.index] = text ?? undefined;
    confidences[attribute.index] = c ?? undefined;
  }
}
