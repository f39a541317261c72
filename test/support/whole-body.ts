import type { SnapshotTexts } from "../../actors/history/entity-at.ts";

/** A snapshot's texts as one, as readers get it; the order of its members is another one. */
export function wholeBody({ body, confidences }: SnapshotTexts): string {
  return confidences === null ? body : `${body.slice(0, -1)},${confidences.slice(1)}`;
}
