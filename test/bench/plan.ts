import { shuffled } from "./things.ts";

/** What a sender sends: passes over entities and attributes, every pass with the next generation of values. */
export interface SendPlan {
  readonly firstEntity: number;
  readonly entities: number;
  /** Entities in all: links point within. */
  readonly population: number;
  /** Indexes into `thingAttributes`. */
  readonly attributes: readonly number[];
  /** Of the first pass. */
  readonly generation: number;
  readonly passes: number;
  /** Datapoints are shuffled within blocks of so many entities, which follow one another. */
  readonly blockEntities: number;
  readonly seed: number;
  /** Datapoints in a batch. */
  readonly batch: number;
  /** Batches; null: the client's default window. */
  readonly maxInFlight: number | null;
  /** Datapoints per second of an open loop; null: as fast as credits allow. */
  readonly rate: number | null;
  /** Ends after this time, perhaps in the middle of a pass; null: when all passes are sent. */
  readonly durationS: number | null;
  /** Latencies are also told by windows of this length. */
  readonly windowS: number;
  /** All nodes of a cluster; default: the one that the sender is started with. */
  readonly addresses?: readonly string[];
  /** Sends everything straight to its owner. */
  readonly ownerAware?: boolean;
  /**
   * Tells of each batch that is durable as a line `NUMBER SENT ACKED` (Unix ms), ends at SIGTERM, and lets no more than so
   * many batches wait: what could not be sent then is not made up for. Only with a rate.
   */
  readonly liveMaxBatches?: number;
}

/** One pass of all ten attributes over `entities`, in batches as `starling send` makes them, with the default window. */
export function createPlan(entities: number, changes: Partial<SendPlan> = {}): SendPlan {
  const plan: SendPlan = {
    firstEntity: 0,
    entities,
    population: entities,
    attributes: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
    generation: 1,
    passes: 1,
    blockEntities: entities,
    seed: 1,
    batch: 1_000,
    maxInFlight: null,
    rate: null,
    durationS: null,
    windowS: 60,
    ...changes,
  };
  if (plan.entities % plan.blockEntities !== 0) throw new Error("blocks of entities must divide the entities");
  return plan;
}

/** Datapoints of one pass. */
export function passLength(plan: SendPlan): number {
  return plan.entities * plan.attributes.length;
}

/** What stands at one position of a plan. */
export interface Place {
  readonly entity: number;
  readonly attribute: number;
  readonly generation: number;
}

/** The order of a plan's datapoints, both ways. Every pass rotates the one shuffled order. */
export interface PlanOrder {
  /** The datapoint at a position, counted over all passes. */
  at(position: number): Place;
  /** How often an entity's attribute stands below a position: its generations follow one another from the plan's first. */
  countBelow(entity: number, attribute: number, position: number): number;
}

const stride = 7919;

/** The order of a plan. */
export function createPlanOrder(plan: SendPlan): PlanOrder {
  const { firstEntity, attributes, blockEntities } = plan;
  const blockLength = blockEntities * attributes.length;
  const length = passLength(plan);
  const order = shuffled(blockLength, plan.seed);
  const inverse = new Uint32Array(blockLength);
  for (let i = 0; i < blockLength; i++) inverse[order[i] ?? 0] = i;
  const countBelow = (entity: number, attribute: number, position: number): number => {
    const place = attributes.indexOf(attribute);
    const local = entity - firstEntity;
    if (place < 0 || local < 0 || local >= plan.entities) return 0;
    const pass = Math.floor(position / length);
    const index = place * blockEntities + (local % blockEntities);
    const turned = ((((inverse[index] ?? 0) - pass * stride) % blockLength) + blockLength) % blockLength;
    const within = Math.floor(local / blockEntities) * blockLength + turned;
    return pass + (within < position % length ? 1 : 0);
  };
  return {
    at: (position) => {
      const pass = Math.floor(position / length);
      const within = position % length;
      const block = Math.floor(within / blockLength);
      const index = order[((within % blockLength) + pass * stride) % blockLength] ?? 0;
      const entity = firstEntity + block * blockEntities + (index % blockEntities);
      const attribute = attributes[Math.floor(index / blockEntities)] ?? 0;
      return { entity, attribute, generation: plan.generation + pass };
    },
    countBelow,
  };
}
