import type { AttributeSpec } from "../../modules/model.ts";
import { type LargeValue, smallMaxChars } from "../store/large-value.ts";

/** What an entity knows of the rows that its large values have: see store/large-value.ts. */
export interface LargeRows {
  /** By index of the attribute: whether its row, stored or on its way, holds the value of now. */
  readonly byIndex: Map<number, "current" | "stale">;
  /** What the state says of large values that the model of now does not know: their rows stay as they are. */
  unknown: string;
}

/** The part of an entity that is looked at here. */
interface Values {
  readonly spec: { readonly attributeList: readonly AttributeSpec[] };
  readonly values: readonly unknown[];
  large: LargeRows | null;
}

export function createLargeRows(): LargeRows {
  return { byIndex: new Map(), unknown: "" };
}

/** Whether a value, as a resident entity holds it, is to have a row of its own. */
export function isLarge(value: unknown): value is string {
  return typeof value === "string" && value.length > smallMaxChars;
}

/** Notes that a value is replaced. The same value once more changes nothing: senders repeat themselves. */
export function noteChange({ byIndex }: LargeRows, index: number, before: unknown, after: unknown): void {
  if (byIndex.get(index) === "current" && before !== after) byIndex.set(index, "stale");
}

/** What a flush has to write; from now on these rows are current. Found here, so that a datapoint costs nothing. */
export function takeLarge(entity: Values): LargeValue[] | undefined {
  const { values, spec } = entity;
  let changed: LargeValue[] | undefined;
  for (let index = 0; index < values.length; index++) {
    const value = values[index];
    const large = isLarge(value);
    if (!large && entity.large === null) continue;
    const status = entity.large?.byIndex.get(index);
    const attr = spec.attributeList[index]?.id;
    if (attr === undefined || (large ? status === "current" : status === undefined)) continue;
    entity.large ??= createLargeRows();
    if (large) entity.large.byIndex.set(index, "current");
    else entity.large.byIndex.delete(index);
    changed ??= [];
    changed.push({ attr, body: large ? value : null });
  }
  return changed;
}
