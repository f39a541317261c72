import { describe, expect, it } from "vitest";
import {
  checkKillFacts,
  type EntityFact,
  type KillFacts,
  type RawFact,
  type StateFact,
} from "../support/kill-checker.ts";
import { identityOf, runKillModel, type SentDatapoint } from "../support/kill-model.ts";

const sent: readonly SentDatapoint[] = [
  number("a-1", 1, "b1"),
  number("a-1", 14, "b1"),
  level("a-1", 3, "b1"),
  number("a-2", 4, "b1"),
  number("a-1", 13, "b2"),
  level("a-1", 6, "b2"),
  number("a-1", 50, "b2"),
  number("refused-1", 8, "b2"),
  number("refused-1", 9, "b2"),
];

describe("the checker of the kill test", () => {
  it("finds nothing in what a run without faults leaves behind", () => {
    expect(checkKillFacts(perfect())).toEqual([]);
    expect(perfect().raw.map(identityOf)).toContain("world w1 grand 13 of sum:group/g1");
  });

  it("sees a sent datapoint that is lost, wherever it was lost", () => {
    expect(check({ raw: without("item a-2 number 4 of a") })).toContain("lost: item a-2 number 4 of a");
    const lost = withRaw(without("item a-2 number 4 of a"));
    expect(checkKillFacts(lost)).toEqual(["lost: item a-2 number 4 of a"]);
  });

  it("sees a derived datapoint that is lost, and says of what", () => {
    const raw = without("world w1 grand 13 of sum:group/g1");
    const wanted = "lost: world w1 grand 13 of sum:group/g1, derived from group g1 member 13 of join:item/a-1";
    expect(checkKillFacts(withRaw(raw))).toEqual([wanted]);
  });

  it("sees a datapoint that is there twice, sent or derived", () => {
    for (const identity of ["item a-1 level 3 of a", "group g2 member 14 of join:item/a-1"]) {
      const facts = withRaw(doubled(identity));
      expect(checkKillFacts(facts)).toEqual([expect.stringMatching(`^twice: ${identity}, at [\\d./]+$`)]);
    }
  });

  it("sees a datapoint that nobody sent or derived, a refused one among them", () => {
    const refused = { ...number("refused-1", 8, "b2"), shard: 7, seq: 1 };
    expect(checkKillFacts(withRaw([...perfect().raw, refused]))).toEqual([
      "unexpected: item refused-1 number 8 of a, at 7/1",
    ]);
  });

  it("sees two datapoints of an entity that changed places, sent or derived", () => {
    expect(checkKillFacts(withRaw(swapped("item a-1 number 1 of a", "item a-1 number 14 of a")))).toContain(
      "out of order: item a-1 number 1 of a after item a-1 number 14 of a",
    );
    expect(checkKillFacts(withRaw(swapped("item a-1 level 3 of a", "item a-1 number 13 of a")))).toContain(
      "out of order: item a-1 level 3 of a after item a-1 number 13 of a",
    );
    expect(
      checkKillFacts(withRaw(swapped("group g1 member 1 of join:item/a-1", "group g1 member 13 of join:item/a-1"))),
    ).toContain("out of order: group g1 member 1 of join:item/a-1 after group g1 member 13 of join:item/a-1");
  });

  it("sees times or a confidence that changed on the way", () => {
    const raw = perfect().raw.map((one) => (one.attr === "echo" && one.v === 13 ? { ...one, c: 0.25 } : one));
    expect(checkKillFacts(withRaw(raw))).toEqual([
      'changed: item a-1 echo 13 of echo:item/a-1 is {"t1":1013,"t2":1513,"c":0.25}, not {"t1":1013,"t2":1513,"c":0.5}',
    ]);
  });

  it("sees an entity in two shards", () => {
    const moved = perfect().raw.map((one) => (one.v === 13 && one.type === "group" ? { ...one, shard: 9 } : one));
    expect(check({ raw: moved })).toContain("in several shards: group g1");
  });
});

describe("the checker of the kill test, of what is stored besides the log", () => {
  it("sees a state that is older than the log, or counts a datapoint twice", () => {
    expect(check({ entities: changed("item a-1", "level", { v: 3, n: 1 }) })).toEqual([
      'state of item a-1 level is {"v":3,"c":0.5,"n":1}, not {"v":6,"c":0.5,"n":2}',
    ]);
    expect(check({ entities: changed("item a-1", "number", { n: 5 }) })).toEqual([
      'state of item a-1 number is {"v":50,"t1":1050,"t2":1550,"c":0.5,"n":5}, not {"v":50,"t1":1050,"t2":1550,"c":0.5,"n":4}',
    ]);
  });

  it("sees an entity that is missing, too much, or not applied to the end", () => {
    const { entities } = perfect();
    expect(check({ entities: entities.filter(({ eid }) => eid !== "a-2") })).toEqual(["no entity: item a-2"]);
    const refused = { type: "item", eid: "refused-1", applied: 3, state: {} };
    expect(check({ entities: [...entities, refused] })).toEqual(["an entity without datapoints: item refused-1"]);
    const behind = entities.map((entity) => (entity.eid === "a-2" ? { ...entity, applied: 1 } : entity));
    expect(check({ entities: behind })).toEqual([expect.stringMatching(/^applied of item a-2 is 1, the log ends at/)]);
  });

  it("sees a history with a gap, a double or a swap", () => {
    const { history } = perfect();
    const at = history.findIndex(({ v }) => v === 14);
    const one = history.slice(at, at + 1);
    const gap = [...history.slice(0, at), ...history.slice(at + 1)];
    expect(check({ history: gap })).toHaveLength(1);
    expect(check({ history: [...history.slice(0, at), ...one, ...history.slice(at)] })).toHaveLength(1);
    expect(check({ history: [...gap, ...one] })).toEqual([expect.stringMatching(/^history of item a-1: datapoint \d/)]);
    const last = history.slice(-1);
    expect(check({ history: [...history, ...last] })).toEqual([expect.stringMatching(/is too much$/)]);
  });

  it("sees refusals that were forgotten or recorded twice", () => {
    const { refused } = perfect();
    expect(refused).toEqual(["item refused-1", "group refused-2"]);
    expect(check({ refused: refused.slice(1) })).toEqual(["refused: 0 tasks of item refused-1, not 1"]);
    expect(check({ refused: [...refused, "group refused-2"] })).toEqual(["refused: 2 tasks of group refused-2, not 1"]);
  });

  it("sees dead letters, logs that are not processed to their end, and batches without an acknowledgement", () => {
    expect(check({ deadLetters: ["1/2 hook echo"] })).toEqual(["dead letter: 1/2 hook echo"]);
    const logs = [
      { shard: 1, end: 5, watermark: 4, delivered: 5 },
      { shard: 2, end: 5, watermark: 5, delivered: 4 },
    ];
    expect(check({ logs })).toEqual([
      "shard 1 ends at 5: watermark 4, delivered 5",
      "shard 2 ends at 5: watermark 5, delivered 4",
    ]);
    expect(check({ acknowledged: new Set(["b1"]) })).toEqual(["never acknowledged: batch b2"]);
  });
});

function number(eid: string, v: number, batch: string): SentDatapoint {
  return { type: "item", eid, attr: "number", src: "a", v, t1: 1000 + v, t2: 1500 + v, c: 0.5, batch };
}

function level(eid: string, v: number, batch: string): SentDatapoint {
  return { type: "item", eid, attr: "level", src: "a", v, t1: null, t2: null, c: 0.5, batch };
}

/** What a run without faults leaves behind. */
function perfect(): KillFacts {
  const raw = [...runKillModel(sent).expected.values()].map(({ cause: _, ...one }, index) => {
    return { ...one, shard: one.type.length, seq: index + 1 };
  });
  return withRaw(raw);
}

/** The facts of a run whose log is `raw` and whose state follows from it, as nothing but the log had a fault. */
function withRaw(raw: readonly RawFact[]): KillFacts {
  const entities = new Map<string, { -readonly [K in keyof EntityFact]: EntityFact[K] }>();
  for (const { type, eid, attr, v, t1, t2, c, seq } of raw) {
    const key = `${type} ${eid}`;
    const entity = entities.get(key) ?? { type, eid, applied: 0, state: {} };
    const before = entity.state[attr];
    const n = (before?.n ?? 0) + 1;
    const newest = before === undefined || t1 === null || t1 >= before.t1;
    const state: StateFact = newest ? { v, t1: t1 ?? 77, t2: t2 ?? 77, c, n } : { ...before, n };
    entities.set(key, { ...entity, applied: seq, state: { ...entity.state, [attr]: state } });
  }
  return {
    sent,
    acknowledged: new Set(["b1", "b2"]),
    raw,
    entities: [...entities.values()],
    history: raw.filter(({ t1 }) => t1 !== null),
    refused: ["item refused-1", "group refused-2"],
    deadLetters: [],
    logs: [{ shard: 1, end: 5, watermark: 5, delivered: 5 }],
  };
}

function check(fault: Partial<KillFacts>): string[] {
  return checkKillFacts({ ...perfect(), ...fault });
}

function indexOf(identity: string): number {
  const index = perfect().raw.findIndex((one) => identityOf(one) === identity);
  if (index < 0) throw new Error(`there is no ${identity}`);
  return index;
}

function without(identity: string): RawFact[] {
  const index = indexOf(identity);
  return perfect().raw.filter((_, at) => at !== index);
}

/** The log with a datapoint twice, under seqs that grow. */
function doubled(identity: string): RawFact[] {
  const { raw } = perfect();
  const at = indexOf(identity);
  const copy = raw.slice(at, at + 1).map((one) => ({ ...one, seq: one.seq + 0.5 }));
  return [...raw.slice(0, at + 1), ...copy, ...raw.slice(at + 1)];
}

/** The log with two datapoints in each other's places. */
function swapped(one: string, other: string): RawFact[] {
  const { raw } = perfect();
  const [a, b] = [indexOf(one), indexOf(other)];
  const from = new Map([
    [a, b],
    [b, a],
  ]);
  return raw.map((fact, at) => {
    const content = raw[from.get(at) ?? at] ?? fact;
    return { ...content, shard: fact.shard, seq: fact.seq };
  });
}

function changed(key: string, attr: string, change: Partial<StateFact>): EntityFact[] {
  return perfect().entities.map((entity) => {
    const state = entity.state[attr];
    if (`${entity.type} ${entity.eid}` !== key || state === undefined) return entity;
    return { ...entity, state: { ...entity.state, [attr]: { ...state, ...change } } };
  });
}
