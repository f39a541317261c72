import { wholeState } from "../../actors/store/large-value.ts";
import type { HistorySegment, StoredEntity } from "../../actors/store/store.ts";
import type {
  StoredImage,
  TickPage,
  TickPageRequest,
  TickPlace,
  TickRecord,
  TickWindows,
} from "../../actors/store/tick.ts";
import type { Seq } from "../../proto/ids.ts";
import type { MemoryShard } from "./memory-durable.ts";
import { keyOf } from "./memory-queries.ts";

/** An image, and what a deletion copied of the history. */
export interface MemoryImage extends StoredImage {
  readonly copied: readonly HistorySegment[] | null;
}

const imageKey = (tick: number, key: TickPlace): string => `${tick}\t${keyOf(key)}`;

/** Of one tick the first image stands. */
export function addImage({ images }: MemoryShard, image: StoredImage): void {
  const key = imageKey(image.tick, image);
  if (!images.has(key)) images.set(key, { ...image, copied: null });
}

export function addMark({ marks }: MemoryShard, tick: number, seq: Seq): void {
  if (marks.some((mark) => mark.tick === tick)) return;
  marks.push({ tick, seq, passed: null, visited: false });
  marks.sort((a, b) => a.tick - b.tick);
}

/** A deletion takes the history of its entity along: images copy theirs. */
export function copyHistory({ images, history }: MemoryShard, { type, eid }: StoredEntity): void {
  for (const [key, image] of images) {
    if (image.type !== type || image.eid !== eid || image.state === null || image.copied !== null) continue;
    const copied = (history.get(keyOf(image)) ?? []).filter(({ seq }) => seq <= image.applied);
    images.set(key, { ...image, copied });
  }
}

/** See `Store.readTickPage`; nobody folds here, so there are no pages of histories. */
export function readMemoryTickPage(
  shard: MemoryShard,
  { tick, after, limit, maxBytes, listed = null }: TickPageRequest,
  windowsOf: TickWindows,
): TickPage {
  const places = new Map<string, TickPlace>();
  for (const entity of shard.entities.values()) places.set(keyOf(entity), entity);
  for (const image of shard.images.values()) if (image.tick === tick) places.set(keyOf(image), image);
  const wanted = [...(listed ?? places.values())]
    .filter((place) => after === null || compare(place, after) > 0)
    .sort(compare)
    .slice(0, limit);
  const records: TickRecord[] = [];
  const absent: TickPlace[] = [];
  let last: TickPlace | null = null;
  let isCut = wanted.length === limit;
  let bytes = 0;
  for (const place of wanted) {
    const record = recordAt(shard, tick, place);
    bytes += record === null ? 0 : bytesOf(record);
    if (bytes > maxBytes && last !== null) {
      isCut = true;
      break;
    }
    last = { eid: place.eid, type: place.type };
    if (record !== null) records.push(record);
    else absent.push(last);
  }
  windowsOf(records);
  return { records, absent, last: isCut ? last : null };
}

function recordAt(shard: MemoryShard, tick: number, place: TickPlace): TickRecord | null {
  const image = shard.images.get(imageKey(tick, place));
  const rows = shard.history.get(keyOf(place)) ?? [];
  if (image !== undefined) {
    if (image.state === null) return null;
    return recordOf(image, image.state, image.copied ?? rows.filter(({ seq }) => seq <= image.applied));
  }
  const entity = shard.entities.get(keyOf(place));
  if (entity === undefined || entity.tombstone) return null;
  return recordOf(entity, wholeState(entity.state, entity.large), rows);
}

function recordOf(
  { shard, type, eid, created, createdAt, applied }: Omit<TickRecord, "state" | "rows" | "pages">,
  state: string,
  rows: readonly HistorySegment[],
): TickRecord {
  return { shard, type, eid, created, createdAt, applied, state, rows, pages: [] };
}

function bytesOf({ state, rows }: TickRecord): number {
  return rows.reduce((sum, { body }) => sum + Buffer.byteLength(body), Buffer.byteLength(state));
}

function compare(a: TickPlace, b: TickPlace): number {
  return compareText(a.eid, b.eid) || compareText(a.type, b.type);
}

function compareText(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}
