import type { StarlingError } from "../proto/starling-error.ts";
import { onLinksRead } from "./entity-links.ts";
import type { Entry } from "./entry.ts";
import type { Lane, ReadLinks } from "./lane.ts";
import { advance } from "./processing.ts";
import type { Shard } from "./shard.ts";
import type { StoredLink } from "./store/store.ts";

/** A page of what a deleted entity is linked with has been read: its other ends are told. */
export function onPageRead(lane: Lane, shard: Shard, entry: Entry, links: readonly StoredLink[]): void {
  lane.effects.push({ kind: "health", problem: null });
  if (onLinksRead(lane, shard, entry, links) === "told" && entry.entity !== null) advance(lane, shard, entry.entity);
}

/** The store did not answer: the same again. */
export function onLinksReadFailed(lane: Lane, request: ReadLinks, error: StarlingError): void {
  if (!lane.unlinking.has(request.entry) || lane.shards.get(request.shard.id) !== request.shard) {
    lane.unlinking.delete(request.entry);
    return;
  }
  lane.effects.push({ kind: "health", problem: error });
  lane.effects.push({ ...request, delayMs: 250 });
}
