import { parseDataType } from "../../modules/data-type.ts";
import type { AttributeSpec, EidType, EntitySpec } from "../../modules/model.ts";

/**
 * How values compare: `text` by its bytes (booleans, too), `number`, `time`, `address` by the number behind the text, `json`
 * by what each value is.
 */
export type KeyKind = "text" | "number" | "time" | "address" | "json";

/** How what a snapshot holds of an attribute is found and compared. */
export interface SnapshotKey {
  readonly kind: KeyKind;
  /** The value is a list, and what is asked for is one of its elements. */
  readonly many: boolean;
  /** The values, or the elements, are links `{eid, data?}`, which compare by their eid. */
  readonly link: boolean;
}

/** The key of an attribute; null: snapshots hold no value of it. */
export function keyOfAttribute(spec: AttributeSpec): SnapshotKey | null {
  if (spec.dataType === null) return null;
  const { fingerprint, link } = spec.dataType;
  const list = fingerprint.startsWith("list[");
  const inner = list ? fingerprint.slice("list[".length, -1) : fingerprint;
  // Of many values of lists the elements are lists.
  const kind = list && spec.multiValue ? "json" : link === null ? kindOf(inner) : "text";
  return { kind, many: list || spec.multiValue, link: link !== null };
}

/** The key of a type's ids: their text, but numbers and addresses compare as such. */
export function keyOfEid({ idDataType }: Pick<EntitySpec, "idDataType">): SnapshotKey {
  return { kind: eidKinds[idDataType], many: false, link: false };
}

/** The data type of what an attribute's key compares: of lists that of their elements. Not for timeseries. */
export function elementType(spec: AttributeSpec) {
  const [, inner] = /^\s*(?:array|set)\s*<(.*)>\s*$/s.exec(spec.dataType?.text ?? "") ?? [];
  return inner === undefined || spec.multiValue ? spec.dataType : parseDataType(inner);
}

const eidKinds: Record<EidType, KeyKind> = {
  string: "text",
  int: "number",
  ipv4: "address",
  ipv6: "address",
  mac: "text",
};

function kindOf(fingerprint: string): KeyKind {
  switch (fingerprint) {
    case "int":
    case "float":
    case "category<int>":
    case "category<float>":
      return "number";
    case "ipv4":
    case "ipv6":
    case "category<ipv4>":
    case "category<ipv6>":
      return "address";
    case "time":
    case "category<time>":
      return "time";
    case "json":
    case "special":
      return "json";
    default:
      return fingerprint.startsWith("dict<") ? "json" : "text";
  }
}
