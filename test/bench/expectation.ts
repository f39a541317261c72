import { createPlanOrder, type PlanOrder, type SendPlan } from "./plan.ts";
import { epochMs, thingAttributes, thingDatapoint } from "./things.ts";

/** What the database must hold of one entity type, decided by what was sent. */
export interface Expectation {
  readonly type: string;
  readonly entities: number;
  /** 0 to `entities` − 1; null if no such entity was sent. */
  numberOf(eid: string): number | null;
  eidOf(number: number): string;
  /** The current value of every attribute. */
  attributesOf(number: number): readonly ExpectedAttribute[];
  /** How many datapoints are in the entity's history. */
  historyLength(number: number): number;
  /** The datapoint of the history with this attribute and `t1`; null if none was sent. */
  historyAt(number: number, attr: string, t1: number): ExpectedDatapoint | null;
}

export interface ExpectedAttribute {
  readonly attr: string;
  readonly json: string;
  /** Null where it is the time of arrival. */
  readonly t1: number | null;
  readonly t2: number | null;
  readonly count: number;
}

export interface ExpectedDatapoint {
  /** Unlike that of every other one in the entity's history. */
  readonly ordinal: number;
  readonly json: string;
  readonly t2: number;
}

/** A plan, and how many of its datapoints were sent. */
export interface Sent {
  readonly plan: SendPlan;
  readonly sent: number;
}

/** Generations from `from` up to, not including, `to`. */
export interface Range {
  readonly from: number;
  readonly to: number;
}

const hourMs = 3_600_000;

/** What plans that were sent one after the other, with growing generations, leave of the things. */
export function expectThings(all: readonly Sent[]): Expectation {
  const orders = all.map((one) => ({ ...one, order: createPlanOrder(one.plan) }));
  const population = all[0]?.plan.population ?? 0;
  const entities = Math.max(...all.map(({ plan }) => plan.firstEntity + plan.entities));
  return expectRanges({ population, entities }, (number, attribute) => rangesIn(orders, number, attribute));
}

/** What these generations of each attribute leave; `rangesOf` gives them in the order of sending. */
export function expectRanges(
  { population, entities }: { readonly population: number; readonly entities: number },
  rangesOf: (number: number, attribute: number) => readonly Range[],
): Expectation {
  return {
    type: "thing",
    entities,
    eidOf: (number) => `thing-${number}`,
    numberOf: (eid) => parseNumber(eid, "thing-", entities),
    attributesOf: (number) =>
      thingAttributes.flatMap((attr, attribute) => {
        const ranges = rangesOf(number, attribute);
        const last = ranges.at(-1);
        if (last === undefined) return [];
        const { v, t1, t2 } = thingDatapoint(number, attribute, last.to - 1, population);
        const count = ranges.reduce((sum, { from, to }) => sum + to - from, 0);
        return [{ attr, json: storedJson(v), t1: t1 ?? null, t2: t2 ?? null, count }];
      }),
    historyLength: (number) =>
      thingAttributes.reduce((sum, attr, attribute) => {
        if (isPlain(attr)) return sum;
        return sum + rangesOf(number, attribute).reduce((length, { from, to }) => length + to - from, 0);
      }, 0),
    historyAt: (number, attr, t1) => {
      const attribute = (thingAttributes as readonly string[]).indexOf(attr);
      const generation = (t1 - epochMs - number) / hourMs;
      if (attribute < 0 || isPlain(attr)) return null;
      if (!rangesOf(number, attribute).some(({ from, to }) => generation >= from && generation < to)) return null;
      if (!Number.isInteger(generation)) return null;
      const { v, t2 } = thingDatapoint(number, attribute, generation, population);
      return { ordinal: generation * thingAttributes.length + attribute, json: storedJson(v), t2: t2 ?? t1 };
    },
  };
}

function rangesIn(
  orders: readonly (Sent & { readonly order: PlanOrder })[],
  entity: number,
  attribute: number,
): Range[] {
  const ranges: Range[] = [];
  for (const { plan, sent, order } of orders) {
    const count = order.countBelow(entity, attribute, sent);
    if (count > 0) ranges.push({ from: plan.generation, to: plan.generation + count });
  }
  return ranges;
}

/** The number behind a prefix, if it is written as we write it and below `limit`. */
export function parseNumber(eid: string, prefix: string, limit: number): number | null {
  const number = Number(eid.slice(prefix.length));
  return number < limit && eid === `${prefix}${number}` ? number : null;
}

function isPlain(attr: string): boolean {
  return attr.startsWith("p_") || attr === "peer";
}

/** A value as the node stores it: times to the second or the microsecond, series in the order of their names. */
function storedJson(v: unknown): string {
  if (typeof v !== "object" || v === null || !("time" in v) || !("value" in v)) return JSON.stringify(v);
  const times = (v.time as readonly string[]).map((time) =>
    time.replace(/\.000Z$/, "Z").replace(/(\.\d{3})Z$/, "$1000Z"),
  );
  return JSON.stringify({ time: times, value: v.value });
}
