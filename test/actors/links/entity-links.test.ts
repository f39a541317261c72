import { expect, test } from "vitest";
import { createEntity } from "../../../actors/lane/entity.ts";
import { applyUnlink, takeLinks } from "../../../actors/links/entity-links.ts";
import type { Model } from "../../../modules/model.ts";
import { testModel } from "../../support/test-model.ts";

/** Buses that were observed at stops. */
function busModel(): Model {
  const plain = testModel({ bus: { at: { kind: "observations", type: "string" } }, stop: {} });
  const bus = plain.entities.get("bus");
  if (bus === undefined) throw new Error("no type bus");
  const attributeList = bus.attributeList.map((spec) => ({ ...spec, relation: { target: "stop" } as never }));
  const attributes = new Map(attributeList.map((spec) => [spec.id, spec]));
  return { ...plain, entities: new Map(plain.entities).set("bus", { ...bus, attributeList, attributes }) };
}

function forgottenUpTo(befores: readonly (number | null)[]): readonly (number | null)[] {
  const model = busModel();
  const spec = model.entities.get("bus");
  if (spec === undefined) throw new Error("no type bus");
  const entity = createEntity(spec, "b1", "b1");
  entity.exists = true;
  for (const before of befores)
    applyUnlink(model, entity, { kind: "unlink", attr: "at", type: "stop", eid: "s1", before });
  const rows = takeLinks(model, entity)?.rows ?? [];
  return rows.map((row) => (row.kind === "forgotten" ? row.before : Number.NaN));
}

test("of two deaths of a target the later one counts, in whatever order they are told before a flush (K5)", () => {
  expect(forgottenUpTo([100, 200])).toEqual([200]);
  expect(forgottenUpTo([200, 100])).toEqual([200]);
  expect(forgottenUpTo([null, 100])).toEqual([null]);
  expect(forgottenUpTo([100, null])).toEqual([null]);
});
