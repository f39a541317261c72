import { parseDataType } from "../../modules/data-type.ts";
import type { AttributeKind, AttributeSpec, EntitySpec, Model } from "../../modules/model.ts";

/** A small model made in code: entity types with plain and observation attributes. */
export function testModel(types: Record<string, Record<string, { kind: AttributeKind; type: string }>>): Model {
  const entities = new Map<string, EntitySpec>();
  for (const [index, [id, attribs]] of Object.entries(types).entries()) {
    const list = Object.entries(attribs).map(([name, of], at) => attribute(name, at, of));
    entities.set(id, {
      id,
      index,
      idDataType: "string",
      name: id,
      snapshot: false,
      description: "",
      lifetime: { type: "immortal" },
      attributes: new Map(list.map((spec) => [spec.id, spec])),
      attributeList: list,
    });
  }
  return { entities, hash: "test" };
}

function attribute(id: string, index: number, of: { kind: AttributeKind; type: string }): AttributeSpec {
  return {
    id,
    index,
    kind: of.kind,
    name: id,
    description: "",
    dataType: parseDataType(of.type),
    editable: false,
    ttlMs: 0,
    relation: null,
    readOnly: false,
    confidence: false,
    multiValue: false,
    historyForceGraph: false,
    history: null,
    timeseries: null,
  };
}
