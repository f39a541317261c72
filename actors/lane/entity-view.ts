import type { CheckedDatapoint, Eid, Value } from "../../modules/datapoint.ts";
import type { LatestValue, RecordView } from "../../modules/hook.ts";
import { copyValue } from "../value-copy.ts";
import { type Entity, numbersEach, readAttribute } from "./entity.ts";

/**
 * The record as hooks see it: live, read only. `fresh`: the datapoint that they are called for, whose value need not be parsed
 * as long as it is the record's.
 */
export function viewOf(entity: Entity, fresh: CheckedDatapoint | null): RecordView {
  return new EntityView(entity, fresh);
}

/** A record that no longer changes, for reads from outside the entity's turn. */
export function copyView(entity: Entity): RecordView {
  return new EntityView({ ...entity, values: entity.values.slice(), numbers: entity.numbers.slice() }, null);
}

class EntityView implements RecordView {
  readonly #entity: Entity;
  readonly #fresh: CheckedDatapoint | null;

  constructor(entity: Entity, fresh: CheckedDatapoint | null) {
    this.#entity = entity;
    this.#fresh = fresh;
  }

  get type(): string {
    return this.#entity.spec.id;
  }

  get eid(): Eid {
    return this.#entity.eidValue;
  }

  value(attr: string): Value | undefined {
    const fresh = this.#fresh;
    if (fresh !== null && fresh.attr === attr) return readFresh(this.#entity, fresh);
    const spec = this.#entity.spec.attributes.get(attr);
    return spec === undefined ? undefined : readAttribute(this.#entity, spec);
  }

  latest(attr: string): LatestValue | undefined {
    const spec = this.#entity.spec.attributes.get(attr);
    const v = spec === undefined ? undefined : readAttribute(this.#entity, spec);
    if (spec === undefined || v === undefined) return undefined;
    const first = numbersEach * spec.index;
    const [t1 = 0, t2 = 0, c = 1, count = 0] = this.#entity.numbers.slice(first, first + numbersEach);
    return { v, t1, t2, c, count };
  }

  attributes(): string[] {
    const { spec, values } = this.#entity;
    return spec.attributeList.filter(({ index }) => values[index] !== undefined).map(({ id }) => id);
  }
}

/** Most hooks read what has just been written: where the record has its text, the checked value is at hand. */
function readFresh(entity: Entity, { spec, json, v }: CheckedDatapoint): Value | undefined {
  if (entity.values[spec.index] !== json) return readAttribute(entity, spec);
  return copyValue(v, spec.dataType === null);
}
