import type { CheckedDatapoint, Eid, Value } from "../modules/datapoint.ts";
import type { LatestValue, RecordView } from "../modules/hook.ts";
import type { EntitySpec } from "../modules/model.ts";
import { type Seq, toSeq } from "../proto/ids.ts";
import type { Entry } from "./entry.ts";
import { readValue, writeSource } from "./line.ts";
import { timeText } from "./number-text.ts";
import type { Obligation } from "./obligation.ts";
import type { StoredEntity } from "./store/store.ts";

/**
 * One activation of an entity: its record without histories, and its mailbox. It is an actor: one task at a time, in log
 * order, hooks included (R15). Histories are in PostgreSQL; what a flush has yet to add waits in `history`.
 */
export interface Entity {
  readonly spec: EntitySpec;
  readonly eid: string;
  readonly eidValue: Eid;
  status: "loading" | "resident";
  exists: boolean;
  /** Seq of the task that created it. */
  created: Seq;
  createdAt: number;
  /** Seq of the last task applied. */
  applied: Seq;
  /** `applied` as PostgreSQL has it, and as the flush in flight will have it. */
  flushed: Seq;
  flushing: Seq;
  /** By index of the attribute. */
  readonly attributes: (AttributeState | undefined)[];
  ttlTokens: Record<string, number> | null;
  /** What no flush has yet added to the history. */
  history: CheckedDatapoint[];
  historySeq: Seq;
  /** Tasks that wait their turn; the first one runs. */
  readonly mailbox: Entry[];
  /** Entries of this entity whose hooks or answers are open. */
  open: number;
  /** Set while entries below the watermark are open (R16). */
  obligation: Obligation | null;
  dirty: boolean;
  /** Deleted, and the flush that says so is not done. */
  tombstone: boolean;
  /** Monotonic ms. */
  usedAt: number;
  view: RecordView | null;
}

/** The newest value of an attribute and how many datapoints it has had. */
export interface AttributeState {
  json: string;
  /** Undefined until somebody reads it. */
  v: Value | undefined;
  t1: number;
  t2: number;
  c: number;
  count: number;
  /** The attribute as {@link writeState} writes it, kept from flush to flush; null once it has changed. */
  text: string | null;
}

/** An activation whose record is still to be loaded. */
export function createEntity(spec: EntitySpec, eid: string, eidValue: Eid): Entity {
  const none = toSeq(0);
  return {
    spec,
    eid,
    eidValue,
    status: "loading",
    exists: false,
    created: none,
    createdAt: 0,
    applied: none,
    flushed: none,
    flushing: none,
    attributes: [],
    ttlTokens: null,
    history: [],
    historySeq: none,
    mailbox: [],
    open: 0,
    obligation: null,
    dirty: false,
    tombstone: false,
    usedAt: 0,
    view: null,
  };
}

/** Folds one datapoint into the record. `at`: its arrival time. */
export function applyDatapoint(entity: Entity, datapoint: CheckedDatapoint, seq: Seq, at: number): void {
  const { spec, json, v, c } = datapoint;
  const state = entity.attributes[spec.index];
  const plain = spec.kind === "plain";
  const t1 = plain ? at : (datapoint.t1 ?? at);
  const t2 = plain ? at : (datapoint.t2 ?? t1);
  if (state === undefined) {
    entity.attributes[spec.index] = { json, v, t1, t2, c, count: 1, text: null };
  } else {
    state.count++;
    state.text = null;
    if (plain || t1 >= state.t1) {
      state.json = json;
      state.v = v;
      state.t1 = t1;
      state.t2 = t2;
      state.c = c;
    }
  }
  if (!plain) {
    entity.history.push(datapoint);
    entity.historySeq = seq;
  }
}

/** The lines of a history segment: attr, t1, t2, c, src, json. */
export function writeHistory(datapoints: readonly CheckedDatapoint[]): string {
  const pieces: (string | number)[] = [];
  for (const { attr, t1, t2, c, src, json } of datapoints) {
    if (pieces.length > 0) pieces.push("\n");
    const from = t1 ?? 0;
    pieces.push(attr, "\t", timeText(from), "\t", timeText(t2 ?? from), "\t", c, "\t", writeSource(src), "\t", json);
  }
  return pieces.join("");
}

/** Extends TTL tokens; a token never shrinks. */
export function applyTtl(entity: Entity, tokens: Readonly<Record<string, number>>): void {
  const mine = entity.ttlTokens ?? {};
  for (const [name, at] of Object.entries(tokens)) mine[name] = Math.max(mine[name] ?? at, at);
  entity.ttlTokens = mine;
}

/** Empties the record: the entity is deleted. */
export function clearEntity(entity: Entity): void {
  entity.exists = false;
  entity.attributes.length = 0;
  entity.ttlTokens = null;
  entity.history = [];
}

/** The record as JSON text: `{"attr":{"v","t1","t2","c","n"}, "#ttl":{…}}`. */
export function writeState(entity: Entity): string {
  const { attributes, spec } = entity;
  const texts: string[] = [];
  for (let index = 0; index < attributes.length; index++) {
    const state = attributes[index];
    if (state === undefined) continue;
    state.text ??= writeAttribute(spec.attributeList[index]?.id ?? "", state);
    texts.push(state.text);
  }
  if (entity.ttlTokens !== null) texts.push(`"#ttl":${JSON.stringify(entity.ttlTokens)}`);
  return `{${texts.join(",")}}`;
}

/** Joined, not concatenated: a kept chain of concatenations is a tree of many small objects. */
function writeAttribute(attr: string, { json, t1, t2, c, count }: AttributeState): string {
  return [
    '"',
    attr,
    '":{"v":',
    json,
    ',"t1":',
    timeText(t1),
    ',"t2":',
    timeText(t2),
    ',"c":',
    c,
    ',"n":',
    count,
    "}",
  ].join("");
}

/** Fills an activation from what is stored; attributes that the model no longer has are left out. */
export function restoreEntity(entity: Entity, stored: StoredEntity | null): void {
  entity.status = "resident";
  if (stored === null) return;
  entity.exists = !stored.tombstone;
  entity.created = stored.created;
  entity.createdAt = stored.createdAt;
  entity.applied = entity.flushed = entity.flushing = stored.applied;
  if (!stored.tombstone) readState(entity, stored.state);
}

const stateField = /^"([^"]+)":\{"v":/;

/**
 * Reads what {@link writeState} wrote. JSON.parse would lose the text of the values (and int64 beyond 2^53), so each
 * attribute's text is kept and only parsed when a hook reads it.
 */
function readState(entity: Entity, state: string): void {
  let at = 1;
  while (at < state.length - 1) {
    if (state.startsWith('"#ttl":', at)) {
      entity.ttlTokens = JSON.parse(state.slice(at + 7, -1)) as Record<string, number>;
      return;
    }
    const head = stateField.exec(state.slice(at, at + 300));
    if (head === null) throw new Error(`the stored state of ${entity.spec.id} ${entity.eid} is damaged at ${at}`);
    const start = at + head[0].length;
    const end = endOfValue(state, start);
    const close = state.indexOf("}", end);
    const rest = JSON.parse(`{${state.slice(end + 1, close)}}`) as { t1: number; t2: number; c: number; n: number };
    const spec = entity.spec.attributes.get(head[1] ?? "");
    if (spec !== undefined) {
      const json = state.slice(start, end);
      const { t1, t2, c, n: count } = rest;
      entity.attributes[spec.index] = { json, v: undefined, t1, t2, c, count, text: state.slice(at, close + 1) };
    }
    at = close + 2;
  }
}

/** Index of the first character after the JSON value that begins at `start`. */
function endOfValue(text: string, start: number): number {
  let depth = 0;
  let quoted = false;
  for (let i = start; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (quoted) {
      if (c === 92) i++;
      else if (c === 34) quoted = false;
    } else if (c === 34) quoted = true;
    else if (c === 123 || c === 91) depth++;
    else if (c === 125 || c === 93) depth--;
    else if (c === 44 && depth === 0) return i;
  }
  return text.length;
}

/** The record as hooks see it: live, read only. */
export function viewOf(entity: Entity): RecordView {
  entity.view ??= new EntityView(entity);
  return entity.view;
}

/** A record that no longer changes, for reads from outside the entity's turn. */
export function copyView(entity: Entity): RecordView {
  return new EntityView({ ...entity, attributes: entity.attributes.map((s) => (s === undefined ? s : { ...s })) });
}

class EntityView implements RecordView {
  readonly #entity: Entity;

  constructor(entity: Entity) {
    this.#entity = entity;
  }

  get type(): string {
    return this.#entity.spec.id;
  }

  get eid(): Eid {
    return this.#entity.eidValue;
  }

  value(attr: string): Value | undefined {
    const spec = this.#entity.spec.attributes.get(attr);
    const state = spec && this.#entity.attributes[spec.index];
    if (spec === undefined || state === undefined) return undefined;
    state.v ??= readValue(spec, state.json);
    return state.v;
  }

  latest(attr: string): LatestValue | undefined {
    const spec = this.#entity.spec.attributes.get(attr);
    const state = spec && this.#entity.attributes[spec.index];
    if (spec === undefined || state === undefined) return undefined;
    state.v ??= readValue(spec, state.json);
    return { v: state.v, t1: state.t1, t2: state.t2, c: state.c, count: state.count };
  }

  attributes(): string[] {
    return this.#entity.spec.attributeList.filter((spec) => this.#entity.attributes[spec.index]).map((spec) => spec.id);
  }
}
