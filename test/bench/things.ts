/**
 * The datapoints of the benchmarks: ten for each entity, in an order that is shuffled but the same in every run. Values are
 * a function of (entity, attribute, generation), so that whoever checks needs no copy of what was sent.
 */
export const thingAttributes = [
  "p_text",
  "p_int",
  "p_float",
  "p_flag",
  "o_level",
  "o_state",
  "o_count",
  "o_temp",
  "peer",
  "load",
] as const;

export type ThingAttribute = (typeof thingAttributes)[number];

export interface ThingDatapoint {
  readonly type: string;
  readonly eid: string;
  readonly attr: ThingAttribute;
  readonly v: unknown;
  readonly t1?: number;
  readonly t2?: number;
  readonly src: string;
}

/** 2026-01-01T00:00:00Z. */
export const epochMs = 1_767_225_600_000;

/** One datapoint, fully decided by its arguments. */
export function thingDatapoint(
  entity: number,
  attribute: number,
  generation: number,
  entities: number,
): ThingDatapoint {
  const attr = thingAttributes[attribute % thingAttributes.length] ?? "p_int";
  const t1 = epochMs + generation * 3_600_000 + entity;
  const eid = `thing-${entity}`;
  const v = valueFor(attr, entity, generation, entities, t1);
  // Two literals: objects that are made by spreading are slow to make, and slow to read from ever after.
  if (plainAttributes.has(attr)) return { type: "thing", eid, attr, src: "bench", v };
  return { type: "thing", eid, attr, src: "bench", v, t1, t2: t1 + 60_000 };
}

const plainAttributes: ReadonlySet<ThingAttribute> = new Set(["p_text", "p_int", "p_float", "p_flag", "peer"]);

function valueFor(attr: ThingAttribute, entity: number, generation: number, entities: number, t1: number): unknown {
  const mixed = (entity * 31 + generation * 7919) % 1_000_003;
  switch (attr) {
    case "p_text":
      return `text ${mixed} of thing ${entity}`;
    case "p_int":
    case "o_count":
      return mixed;
    case "p_float":
    case "o_level":
    case "o_temp":
      return mixed + 0.5;
    case "p_flag":
      return mixed % 2 === 0;
    case "o_state":
      return `state-${mixed % 10}-${generation}`;
    case "peer":
      return { eid: `thing-${(entity + 1 + generation) % entities}` };
    case "load":
      return {
        value: [mixed + 0.25, mixed + 0.75],
        time: [new Date(t1).toISOString(), new Date(t1 + 30_000).toISOString()],
      };
  }
}

/** All numbers below `count` in an order fixed by `seed` (Fisher–Yates over mulberry32). */
export function shuffled(count: number, seed: number): Uint32Array {
  const order = Uint32Array.from({ length: count }, (_, i) => i);
  const random = mulberry32(seed);
  for (let i = count - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    const swapped = order[i] ?? 0;
    order[i] = order[j] ?? 0;
    order[j] = swapped;
  }
  return order;
}

/** Numbers from 0 to below 1, the same for the same seed (Tommy Ettinger's mulberry32). */
export function mulberry32(seed: number): () => number {
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}
