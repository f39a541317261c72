import type { Value } from "../../modules/datapoint.ts";
import type { RecordView } from "../../modules/hook.ts";
import type { AttributeSpec, EntitySpec } from "../../modules/model.ts";

/**
 * A record's attributes as JSON text, `{"attr":{"v":…,"t1":ms,"t2":ms,"c":n,"n":count}}`: the format in which
 * `actors/lane/entity.ts` stores them.
 */
export function attributesJson(entity: EntitySpec, view: RecordView): string {
  const members: string[] = [];
  for (const name of view.attributes()) {
    const latest = view.latest(name);
    const spec = entity.attributes.get(name);
    if (latest === undefined || spec === undefined) continue;
    const { t1, t2, c, count } = latest;
    const times = `"t1":${t1},"t2":${t2},"c":${c},"n":${count}`;
    members.push(`${JSON.stringify(name)}:{"v":${writeValue(spec, latest.v)},${times}}`);
  }
  return `{${members.join(",")}}`;
}

/** A value as the node stores it. */
export function writeValue(spec: AttributeSpec, value: Value): string {
  if (spec.dataType !== null) return spec.dataType.write(value);
  return JSON.stringify(value, (_, inner: unknown) => (typeof inner === "bigint" ? String(inner) : inner)) ?? "null";
}
