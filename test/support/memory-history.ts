import type { HistorySegment, StoredEntity } from "../../actors/store/store.ts";
import { keyOf } from "./memory-queries.ts";

/** Of one seq the first row stands. */
export function addHistory(history: Map<string, HistorySegment[]>, segment: HistorySegment): void {
  const known = history.get(keyOf(segment)) ?? [];
  if (known.some(({ seq }) => seq === segment.seq)) return;
  history.set(
    keyOf(segment),
    [...known, segment].sort((a, b) => a.seq - b.seq),
  );
}

/** A deletion takes what stands below it along. */
export function dropHistory(history: Map<string, HistorySegment[]>, entity: StoredEntity): void {
  const rest = (history.get(keyOf(entity)) ?? []).filter(({ seq }) => seq > entity.applied);
  if (rest.length === 0) history.delete(keyOf(entity));
  else history.set(keyOf(entity), rest);
}
