import { applyDatapoint, createEntity } from "../../actors/lane/entity.ts";
import { restoreEntity, type StateForm, writeState } from "../../actors/lane/entity-state.ts";
import { takeLarge } from "../../actors/lane/large-rows.ts";
import type { RecordAt } from "../../actors/snapshots/snapshot-values.ts";
import type { StoredEntity } from "../../actors/store/store.ts";
import { checkDatapointOf } from "../../modules/check-datapoint.ts";
import type { LooseDatapoint } from "../../modules/datapoint.ts";
import { canonicalEid, readEid } from "../../modules/eid.ts";
import type { EntitySpec, Model } from "../../modules/model.ts";
import { toSeq } from "../../proto/ids.ts";

export type Told = Omit<LooseDatapoint, "type" | "eid">;

/** The type of a model. */
export function specOf(model: Model, type: string): EntitySpec {
  const spec = model.entities.get(type);
  if (spec === undefined) throw new Error(`the model has no ${type}`);
  return spec;
}

/** What the store has of an entity after one flush of these datapoints, which came at the instant `at`. */
export function recordAt(
  spec: EntitySpec,
  eid: unknown,
  datapoints: readonly Told[],
  at = 0,
  form: StateForm = "short",
): RecordAt & Pick<StoredEntity, "large"> {
  const text = canonicalEid(spec, eid);
  const entity = createEntity(spec, text, readEid(spec, text));
  restoreEntity(entity, null);
  entity.exists = true;
  for (const told of datapoints) {
    applyDatapoint(entity, checkDatapointOf(spec, entity.eidValue, told), toSeq(1), at);
  }
  const rows = entity.history === null ? [] : [{ seq: toSeq(1), body: entity.history }];
  const state = writeState(entity, "row", form);
  return { eid: text, state, large: takeLarge(entity), rows, pages: [], horizons: new Map() };
}
