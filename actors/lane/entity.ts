import { stateAttr } from "../../modules/behaviour.ts";
import type { CheckedDatapoint, Eid, Value } from "../../modules/datapoint.ts";
import type { AttributeSpec, EntitySpec } from "../../modules/model.ts";
import { type Seq, toSeq } from "../../proto/ids.ts";
import type { LinkNotes } from "../links/entity-links.ts";
import { writeTail } from "../log/line.ts";
import type { EntityImage } from "../snapshots/tick-image.ts";
import type { Entry } from "./entry.ts";
import { type LargeRows, noteChange } from "./large-rows.ts";
import type { Obligation } from "./obligation.ts";

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
  /** By index of the attribute: its newest value. */
  readonly values: (StoredValue | undefined)[];
  /**
   * Four numbers for each attribute: t1, t2 (Unix ms), c, and how many datapoints it has had. Doubles side by side: an object
   * for each attribute would be most of what a resident entity takes.
   */
  numbers: number[];
  /** Null: no flush has yet met a large value. */
  large: LargeRows | null;
  /** Stored attributes that the model of now does not know, as `writeState` writes them: they may come back. */
  unknown: string;
  ttlTokens: Record<string, number> | null;
  /** Whether PostgreSQL has to be told when its lifetime is to be looked at (`lifetime.ts`). */
  looks: "stored" | "changed";
  /** Lines that no flush has yet added to the history, parts of the log's own text; null: none. An array would be larger. */
  history: string | null;
  historySeq: Seq;
  /** What it was at a tick's mark, which no flush has yet written; null: nothing has changed since, or all is written. */
  image: EntityImage | null;
  /** What no flush has yet written of its links; null: nothing. */
  links: LinkNotes | null;
  /** Tasks that wait their turn, of which the first one runs; null: none, as most of the time. */
  mailbox: Entry[] | null;
  /** Entries of this entity whose hooks or answers are open. */
  open: number;
  /** Set while entries below the watermark are open (R16). */
  obligation: Obligation | null;
  /** Seq of the first task whose changes no flush has taken; 0: none. */
  dirtySeq: Seq;
  /** Deleted, and the flush that says so is not done. */
  tombstone: boolean;
  /** Monotonic ms. */
  usedAt: number;
  /** Roughly what it takes in memory, without what waits for a flush: a sum that is kept, never counted anew. */
  bytes: number;
}

/**
 * A value as a resident entity holds it: a number or a boolean stands for itself, anything else is its canonical JSON text, which
 * is parsed when a hook reads it. So an attribute is at most one thing that the collector has to look at.
 */
export type StoredValue = number | boolean | string;

const none = toSeq(0);

/** An activation whose record is still to be loaded. */
export function createEntity(spec: EntitySpec, eid: string, eidValue: Eid): Entity {
  // What every task touches stands first, side by side: an entity that waited is in none of the processor's caches.
  return {
    spec,
    eid,
    status: "loading",
    exists: false,
    tombstone: false,
    mailbox: null,
    open: 0,
    usedAt: 0,
    created: none,
    applied: none,
    values: new Array(spec.attributeList.length),
    numbers: noNumbers(spec),
    large: null,
    bytes: emptyBytes(spec, eid),
    dirtySeq: none,
    history: null,
    historySeq: none,
    image: null,
    links: null,
    flushed: none,
    flushing: none,
    unknown: "",
    ttlTokens: null,
    looks: "stored",
    obligation: null,
    createdAt: 0,
    eidValue,
  };
}

/** As measured with Node 22: the object, its place in its map and its arrays; and a value's text beside its characters. */
const entityBytes = 500;
const attributeBytes = 40;
const textBytes = 24;

function emptyBytes(spec: EntitySpec, eid: string): number {
  return entityBytes + eid.length + attributeBytes * spec.attributeList.length;
}

/** What a value takes beside its place in the record. */
export function bytesOfValue(value: StoredValue | undefined): number {
  return typeof value === "string" ? textBytes + value.length : 0;
}

/** Zeros for every attribute. A copy of doubles is an array of doubles; one that begins with integers would be converted. */
function noNumbers(spec: EntitySpec): number[] {
  let zeros = zerosBySpec.get(spec);
  if (zeros === undefined) {
    zeros = Array.from({ length: numbersEach * spec.attributeList.length }, () => 0.5);
    for (let i = 0; i < zeros.length; i++) zeros[i] = 0;
    zerosBySpec.set(spec, zeros);
  }
  return zeros.slice();
}

const zerosBySpec = new WeakMap<EntitySpec, number[]>();
export const numbersEach = 4;

/** Folds one datapoint into the record. `at`: its arrival time. */
export function applyDatapoint(entity: Entity, datapoint: CheckedDatapoint, seq: Seq, at: number): void {
  const { spec } = datapoint;
  const { index } = spec;
  const { numbers } = entity;
  const first = numbersEach * index;
  const plain = spec.kind === "plain";
  const t1 = plain ? at : (datapoint.t1 ?? at);
  if (entity.values[index] === undefined || plain || t1 >= (numbers[first] ?? 0)) {
    const { v } = datapoint;
    const value = typeof v === "number" || typeof v === "boolean" ? v : datapoint.json;
    if (entity.large !== null) noteChange(entity.large, index, entity.values[index], value);
    entity.bytes += bytesOfValue(value) - bytesOfValue(entity.values[index]);
    entity.values[index] = value;
    numbers[first] = t1;
    numbers[first + 1] = plain ? at : (datapoint.t2 ?? t1);
    numbers[first + 2] = datapoint.c;
  }
  numbers[first + 3] = (numbers[first + 3] ?? 0) + 1;
  if (!plain) {
    const line = datapoint.line ?? writeTail(datapoint);
    entity.history = entity.history === null ? line : `${entity.history}\n${line}`;
    entity.historySeq = seq;
  }
}

/**
 * The newest value of an attribute, undefined if it has none. Stored text is not checked again: what was true stays true when
 * the model becomes narrower.
 */
export function readAttribute({ values }: Entity, spec: AttributeSpec): Value | undefined {
  return readStored(spec, values[spec.index]);
}

/** What a stored value of an attribute stands for. */
export function readStored(spec: AttributeSpec, value: StoredValue | undefined): Value | undefined {
  if (typeof value !== "string") return value;
  return spec.dataType === null ? (JSON.parse(value) as Value) : spec.dataType.read(value);
}

/** Replaces the newest value by what is left of it; undefined: the attribute has none any more. */
export function replaceValue(entity: Entity, { index, dataType }: AttributeSpec, rest: Value | undefined): void {
  const value = rest === undefined ? undefined : dataType?.write(rest);
  if (entity.large !== null) noteChange(entity.large, index, entity.values[index], value);
  entity.bytes += bytesOfValue(value) - bytesOfValue(entity.values[index]);
  entity.values[index] = value;
}

/** Replaces the state of an actor, given as JSON text. */
export function applyState(entity: Entity, json: string, seq: Seq, at: number): void {
  const spec = entity.spec.attributes.get(stateAttr);
  if (spec === undefined) throw new Error(`${entity.spec.id} is no actor`);
  const { spec: type, eidValue: eid } = entity;
  const v = JSON.parse(json) as Value;
  applyDatapoint(
    entity,
    { spec, type: type.id, eid, attr: spec.id, v, json, t1: null, t2: null, c: 1, src: null, line: null },
    seq,
    at,
  );
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
  entity.values.fill(undefined);
  entity.numbers = noNumbers(entity.spec);
  entity.large = null;
  entity.unknown = "";
  entity.ttlTokens = null;
  entity.history = null;
  entity.links = null;
  entity.bytes = emptyBytes(entity.spec, entity.eid);
}
