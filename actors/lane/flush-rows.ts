import { takeLookAt } from "../lifetimes/lifetime.ts";
import { takeLinks } from "../links/entity-links.ts";
import { takeImage } from "../snapshots/tick-image.ts";
import type { FlushRequest, StoredEntity } from "../store/store.ts";
import type { Entity } from "./entity.ts";
import { type StateForm, writeState } from "./entity-state.ts";
import type { Flush, Lane } from "./lane.ts";
import { takeLarge } from "./large-rows.ts";
import type { Shard } from "./shard.ts";

/** What a flush takes of entities: their records, and what they gained beside. */
export type TakenRows = Taken & { readonly rows: readonly StoredEntity[] };

type Taken = {
  readonly [part in "history" | "links" | "obituaries" | "looks" | "images"]: NonNullable<FlushRequest[part]>[number][];
};

/** Takes them: what was taken is no longer with the entities. */
export function takeRows(lane: Lane, entities: Flush["entities"]): TakenRows {
  const taken: Taken = { history: [], links: [], obituaries: [], looks: [], images: [] };
  const form = lane.world.stateForm();
  const rows = entities.map(({ shard, entity }) => takeRow(lane, shard, entity, { form, taken }));
  return { rows, ...taken };
}

function takeRow(
  lane: Lane,
  { id: shard }: Shard,
  entity: Entity,
  { form, taken }: { readonly form: StateForm; readonly taken: Taken },
): StoredEntity {
  const { eid, created, createdAt, flushing: applied, tombstone } = entity;
  const type = entity.spec.id;
  if (entity.links !== null) {
    const links = takeLinks(lane.world.model, entity);
    if (links !== null) taken.links.push({ shard, type, eid, ...links });
  }
  takeImage(entity, { shard, type, eid }, taken);
  if (entity.history !== null) {
    taken.history.push({ shard, type, eid, seq: entity.historySeq, body: entity.history });
    entity.history = null;
  }
  const lookAt = takeLookAt(entity);
  if (lookAt !== undefined) taken.looks.push({ shard, type, eid, at: lookAt });
  if (tombstone && lane.linkTypes.targets.has(type)) taken.obituaries.push({ shard, type, eid, seq: applied });
  const state = tombstone ? "{}" : writeState(entity, "row", form);
  const large = tombstone ? undefined : takeLarge(entity);
  return { shard, type, eid, created, createdAt, applied, state, tombstone, large };
}
