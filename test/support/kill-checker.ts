import {
  type ExpectedDatapoint,
  identityOf,
  type KillDatapoint,
  runKillModel,
  type SentDatapoint,
} from "./kill-model.ts";

/** All that a run left behind. */
export interface KillFacts {
  readonly sent: readonly SentDatapoint[];
  /** Batches that were acknowledged. */
  readonly acknowledged: ReadonlySet<string>;
  /** `starling.raw`, in the order of shard and seq. */
  readonly raw: readonly RawFact[];
  readonly entities: readonly EntityFact[];
  /** One for each datapoint in `starling.history`, in the order of seq and line. */
  readonly history: readonly KillDatapoint[];
  /** Refused tasks, `type eid`. */
  readonly refused: readonly string[];
  /** Dead letters as text. */
  readonly deadLetters: readonly string[];
  readonly logs: readonly LogFact[];
}

export interface RawFact extends KillDatapoint {
  readonly shard: number;
  readonly seq: number;
}

/** A row of `starling.entity`. */
export interface EntityFact {
  readonly type: string;
  readonly eid: string;
  readonly applied: number;
  readonly state: Readonly<Record<string, StateFact>>;
}

export interface StateFact {
  readonly v: number | string;
  readonly t1: number;
  readonly t2: number;
  readonly c: number;
  readonly n: number;
}

/** The end of a shard's log, and how far it is processed. */
export interface LogFact {
  readonly shard: number;
  readonly end: number;
  readonly watermark: number;
  readonly delivered: number;
}

/** What is wrong, sentence by sentence; nothing when every promise was kept. */
export function checkKillFacts(facts: KillFacts): string[] {
  const { expected, refusals } = runKillModel(facts.sent);
  const byEntity = groupBy(facts.raw, keyOf);
  return [
    ...checkAcknowledged(facts),
    ...checkExistence(facts.raw, expected),
    ...checkPlaces(byEntity),
    ...checkOrder(facts.raw, expected),
    ...checkStates(facts.entities, byEntity),
    ...checkHistories(facts.history, byEntity),
    ...checkRefusals(facts.refused, refusals),
    ...facts.deadLetters.map((letter) => `dead letter: ${letter}`),
    ...checkLogs(facts.logs),
  ];
}

function checkAcknowledged({ sent, acknowledged }: KillFacts): string[] {
  const batches = new Set(sent.map(({ batch }) => batch));
  return [...batches].filter((batch) => !acknowledged.has(batch)).map((batch) => `never acknowledged: batch ${batch}`);
}

/** Every datapoint of the model exactly once, with its value, times and confidence; and nothing else. */
function checkExistence(raw: readonly RawFact[], expected: ReadonlyMap<string, ExpectedDatapoint>): string[] {
  const wrong: string[] = [];
  const found = new Set<string>();
  for (const one of raw) {
    const identity = identityOf(one);
    const wanted = expected.get(identity);
    if (found.has(identity)) wrong.push(`twice: ${identity}, at ${one.shard}/${one.seq}`);
    else if (wanted === undefined) wrong.push(`unexpected: ${identity}, at ${one.shard}/${one.seq}`);
    else if (detailsOf(wanted) !== detailsOf(one)) {
      wrong.push(`changed: ${identity} is ${detailsOf(one)}, not ${detailsOf(wanted)}`);
    }
    found.add(identity);
  }
  for (const [identity, { cause }] of expected) {
    if (!found.has(identity)) wrong.push(`lost: ${identity}${cause === null ? "" : `, derived from ${cause}`}`);
  }
  return wrong;
}

/** An entity lives in one shard. */
function checkPlaces(byEntity: ReadonlyMap<string, readonly RawFact[]>): string[] {
  const spread = [...byEntity].filter(([, list]) => list.some(({ shard }) => shard !== list[0]?.shard));
  return spread.map(([key]) => `in several shards: ${key}`);
}

/**
 * A stream, what one source says about one entity, keeps its order: the order of sending, or that in which the causes
 * stand in the log of their own entity.
 */
function checkOrder(raw: readonly RawFact[], expected: ReadonlyMap<string, ExpectedDatapoint>): string[] {
  const sentAt = new Map([...expected.keys()].map((identity, index) => [identity, index]));
  const loggedAt = new Map(raw.map((one) => [identityOf(one), one.seq]));
  const last = new Map<string, { readonly place: number; readonly identity: string }>();
  const wrong: string[] = [];
  for (const one of raw) {
    const identity = identityOf(one);
    const wanted = expected.get(identity);
    if (wanted === undefined) continue;
    const place = wanted.cause === null ? sentAt.get(identity) : loggedAt.get(wanted.cause);
    if (place === undefined) continue;
    const stream = `${keyOf(one)} ${one.src}`;
    const before = last.get(stream);
    if (before !== undefined && before.place > place) wrong.push(`out of order: ${identity} after ${before.identity}`);
    last.set(stream, { place, identity });
  }
  return wrong;
}

/** Each entity's state is what its datapoints make of it in the order of the log. */
function checkStates(entities: readonly EntityFact[], byEntity: ReadonlyMap<string, readonly RawFact[]>): string[] {
  const wrong: string[] = [];
  const stored = new Map(entities.map((entity) => [keyOf(entity), entity]));
  for (const key of stored.keys()) if (!byEntity.has(key)) wrong.push(`an entity without datapoints: ${key}`);
  for (const [key, datapoints] of byEntity) {
    const entity = stored.get(key);
    if (entity === undefined) {
      wrong.push(`no entity: ${key}`);
      continue;
    }
    const applied = datapoints.at(-1)?.seq;
    if (entity.applied !== applied) wrong.push(`applied of ${key} is ${entity.applied}, the log ends at ${applied}`);
    const wanted = foldState(datapoints);
    for (const attr of new Set([...wanted.keys(), ...Object.keys(entity.state)])) {
      const [is, should] = [stateText(entity.state[attr], wanted.get(attr)), stateText(wanted.get(attr))];
      if (is !== should) wrong.push(`state of ${key} ${attr} is ${is}, not ${should}`);
    }
  }
  return wrong;
}

interface Folded extends Omit<StateFact, "t1" | "t2"> {
  readonly t1: number | null;
  readonly t2: number | null;
}

function foldState(datapoints: readonly RawFact[]): Map<string, Folded> {
  const state = new Map<string, Folded>();
  for (const { attr, v, t1, t2, c } of datapoints) {
    const before = state.get(attr);
    const n = (before?.n ?? 0) + 1;
    const newer = before === undefined || t1 === null || before.t1 === null || t1 >= before.t1;
    state.set(attr, newer ? { v, t1, t2, c, n } : { ...before, n });
  }
  return state;
}

/** Times of plain attributes are those of arrival, which nobody but the node knows. */
function stateText(state: StateFact | Folded | undefined, like: Folded | undefined = undefined): string {
  if (state === undefined) return "nothing";
  const { v, t1, t2, c, n } = state;
  return JSON.stringify(like?.t1 === null || t1 === null ? { v, c, n } : { v, t1, t2, c, n });
}

/** The history of each entity is its datapoints but for the plain ones, each once, in the order of the log. */
function checkHistories(
  history: readonly KillDatapoint[],
  byEntity: ReadonlyMap<string, readonly RawFact[]>,
): string[] {
  const wrong: string[] = [];
  const stored = groupBy(history, keyOf);
  for (const key of stored.keys()) if (!byEntity.has(key)) wrong.push(`a history without datapoints: ${key}`);
  for (const [key, datapoints] of byEntity) {
    const wanted = datapoints.filter(({ t1 }) => t1 !== null).map(wholeText);
    const found = (stored.get(key) ?? []).map(wholeText);
    const at = wanted.findIndex((text, index) => text !== found[index]);
    if (at >= 0) wrong.push(`history of ${key}: datapoint ${at} is ${found[at] ?? "missing"}, not ${wanted[at]}`);
    else if (found.length > wanted.length) wrong.push(`history of ${key}: ${found[wanted.length]} is too much`);
  }
  return wrong;
}

function checkRefusals(refused: readonly string[], wanted: ReadonlyMap<string, number>): string[] {
  const found = new Map([...groupBy(refused, (key) => key)].map(([key, list]) => [key, list.length]));
  const keys = [...new Set([...found.keys(), ...wanted.keys()])];
  return keys
    .filter((key) => found.get(key) !== wanted.get(key))
    .map((key) => `refused: ${found.get(key) ?? 0} tasks of ${key}, not ${wanted.get(key) ?? 0}`);
}

function checkLogs(logs: readonly LogFact[]): string[] {
  return logs
    .filter(({ end, watermark, delivered }) => end !== watermark || end !== delivered)
    .map((log) => `shard ${log.shard} ends at ${log.end}: watermark ${log.watermark}, delivered ${log.delivered}`);
}

function keyOf({ type, eid }: { readonly type: string; readonly eid: string }): string {
  return `${type} ${eid}`;
}

function detailsOf({ t1, t2, c }: KillDatapoint): string {
  return JSON.stringify({ t1, t2, c });
}

function wholeText(datapoint: KillDatapoint): string {
  return `${identityOf(datapoint)} ${detailsOf(datapoint)}`;
}

function groupBy<T>(items: readonly T[], keyOfItem: (item: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const item of items) {
    const key = keyOfItem(item);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [item]);
    else group.push(item);
  }
  return groups;
}
