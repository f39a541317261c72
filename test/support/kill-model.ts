/*
 * What the module `kill-config/code/deriver.ts` makes of a load, said a second time and without a node: the datapoints
 * that have to be in the log, each once, and what is refused.
 */

/** A datapoint as the checker compares it. */
export interface KillDatapoint {
  readonly type: string;
  readonly eid: string;
  readonly attr: string;
  /** The session that sent it, or `hook:type/eid` of what derived it: a stream, whose order is kept. */
  readonly src: string;
  readonly v: number | string;
  /** Unix ms; null for plain attributes. */
  readonly t1: number | null;
  readonly t2: number | null;
  readonly c: number;
}

/** A datapoint that was sent, in the order of its session. */
export interface SentDatapoint extends KillDatapoint {
  /** Names the batch, across sessions. */
  readonly batch: string;
}

/** A datapoint that has to exist, and the one that it was derived from; null for the sent and for those of a creation. */
export interface ExpectedDatapoint extends KillDatapoint {
  readonly cause: string | null;
}

export interface KillModel {
  /** By {@link identityOf}; the sent ones of a session in the order of sending. */
  readonly expected: ReadonlyMap<string, ExpectedDatapoint>;
  /** How many tasks are refused, by `type eid`. */
  readonly refusals: ReadonlyMap<string, number>;
}

/** Tells a datapoint from every other one of a run. */
export function identityOf({ type, eid, attr, src, v }: KillDatapoint): string {
  return `${type} ${eid} ${attr} ${v} of ${src}`;
}

/** Runs the model over what was sent. */
export function runKillModel(sent: readonly SentDatapoint[]): KillModel {
  const expected = new Map<string, ExpectedDatapoint>();
  const refusals = new Map<string, number>();
  const refusedTasks = new Set<string>();
  const add = (datapoint: KillDatapoint, cause: string | null): string => {
    const identity = identityOf(datapoint);
    expected.set(identity, { ...datapoint, cause });
    return identity;
  };
  for (const { batch, ...datapoint } of sent) {
    const { type, eid } = datapoint;
    if (isRefused(eid)) {
      refusedTasks.add(`${type} ${eid}\t${batch}`);
      continue;
    }
    const cause = add(datapoint, null);
    add(plain("item", eid, { attr: "greeting", v: `hello ${eid}`, src: `greet:item/${eid}`, c: 1 }), null);
    if (datapoint.attr === "level") addTwice(datapoint, cause, add);
    else addNumber(datapoint, cause, add, refusals);
  }
  for (const task of refusedTasks) count(refusals, task.slice(0, task.indexOf("\t")));
  return { expected, refusals };
}

type Add = (datapoint: KillDatapoint, cause: string | null) => string;

const foundedAt = 1_600_000_000_000;

function addTwice({ eid, v, c }: KillDatapoint, cause: string, add: Add): void {
  add(plain("item", eid, { attr: "level_twice", v: Number(v) * 2, src: `twice:item/${eid}`, c }), cause);
}

function addNumber(datapoint: KillDatapoint, cause: string, add: Add, refusals: Map<string, number>): void {
  const { eid, v } = datapoint;
  add({ ...datapoint, attr: "echo", src: `echo:item/${eid}` }, cause);
  const number = Number(v);
  if (number % 50 === 0) {
    count(refusals, `group refused-${number % 3}`);
    return;
  }
  const group = `g${number % 12}`;
  const world = `w${(number % 12) % 3}`;
  const member = add({ ...datapoint, type: "group", eid: group, attr: "member", src: `join:item/${eid}` }, cause);
  add({ ...datapoint, type: "world", eid: world, attr: "grand", src: `sum:group/${group}` }, member);
  const founded = { attr: "founded", v: group, src: `found:group/${group}`, t1: foundedAt, t2: foundedAt, c: 1 };
  add({ ...founded, type: "world", eid: world }, null);
}

function plain(type: string, eid: string, rest: Pick<KillDatapoint, "attr" | "v" | "src" | "c">): KillDatapoint {
  return { type, eid, ...rest, t1: null, t2: null };
}

function isRefused(eid: string): boolean {
  return eid.startsWith("refused-");
}

function count(counts: Map<string, number>, key: string): void {
  counts.set(key, (counts.get(key) ?? 0) + 1);
}
