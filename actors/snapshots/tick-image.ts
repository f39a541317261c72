import type { Seq } from "../../proto/ids.ts";
import type { Entity } from "../lane/entity.ts";
import { writeState } from "../lane/entity-state.ts";
import type { Entry } from "../lane/entry.ts";
import type { HistorySegment, StoredEntity } from "../store/store.ts";
import type { StoredImage, TickPlace } from "../store/tick.ts";
import type { Cut } from "./tick-mark.ts";

/** What an entity was at a mark, until a flush takes it with what changed. */
export interface EntityImage extends Pick<StoredImage, "tick" | "state" | "created" | "createdAt" | "applied"> {
  /** What its history had gained by then: rows of their own, so that a seq tells what is of before the mark. */
  readonly history: readonly Pick<HistorySegment, "seq" | "body">[];
}

/**
 * Keeps the image of an entity that an entry is about to change, if it is the first one behind the mark. An entity that the
 * visit has passed needs none; actors are no part of ticks. An entity whose image is stored already may keep another one: the
 * first one stands.
 */
export function keepImage(cut: Cut, entity: Entity, { seq, obligation }: Entry): void {
  if (cut.status === "over" || (seq <= cut.seq && obligation === null)) return;
  if (entity.applied > cut.seq || entity.image?.tick === cut.tick) return;
  if (entity.spec.actor !== undefined || isPassed(cut.passed, entity)) return;
  const { created, createdAt, applied, exists } = entity;
  const history = [...(entity.image?.history ?? []), ...takeHistory(entity)];
  entity.image = {
    tick: cut.tick,
    state: exists ? writeState(entity, "whole") : null,
    created,
    createdAt,
    applied,
    history,
  };
}

function takeHistory(entity: Entity): { seq: Seq; body: string }[] {
  const { history, historySeq } = entity;
  entity.history = null;
  return history === null ? [] : [{ seq: historySeq, body: history }];
}

/** Takes an entity's image for a flush, with the history rows that come with it. */
export function takeImage(
  entity: Entity,
  key: Pick<StoredEntity, "shard" | "type" | "eid">,
  to: { readonly images: StoredImage[]; readonly history: HistorySegment[] },
): void {
  if (entity.image === null) return;
  const { history, ...image } = entity.image;
  entity.image = null;
  to.images.push({ ...key, ...image });
  for (const { seq, body } of history) to.history.push({ ...key, seq, body });
}

function isPassed(passed: TickPlace | null, { eid, spec }: Entity): boolean {
  return passed !== null && comparePlaces({ eid, type: spec.id }, passed) <= 0;
}

/** The order in which PostgreSQL has places: that of their UTF-8. */
export function comparePlaces(a: TickPlace, b: TickPlace): number {
  return compareUtf8(a.eid, b.eid) || compareUtf8(a.type, b.type);
}

function compareUtf8(a: string, b: string): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) {
    const difference = rankOf(a.charCodeAt(i)) - rankOf(b.charCodeAt(i));
    if (difference !== 0) return difference;
  }
  return a.length - b.length;
}

/** Surrogates, which stand for what is beyond U+FFFF, come last. */
function rankOf(unit: number): number {
  if (unit < 0xd800) return unit;
  return unit >= 0xe000 ? unit - 0x800 : unit + 0x2000;
}
