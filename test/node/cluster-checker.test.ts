import { describe, expect, it } from "vitest";
import { type ClusterFacts, checkClusterFacts, sentencesOf, type Verdict } from "../support/cluster/checker.ts";
import { expectStreams } from "../support/cluster/expected-streams.ts";
import type { EntityFact, RawFact } from "../support/kill-checker.ts";

const sent = [
  { eid: "p1", session: "swift", count: 12 },
  { eid: "p2", session: "steady", count: 3 },
];
const seen7 = "mirror m1 seen of p1";

describe("the checker of several nodes", () => {
  it("finds nothing in what a run without faults leaves behind", () => {
    expect(sentencesOf(checkClusterFacts(perfect()))).toEqual([]);
    expect(
      perfect()
        .raw.filter(({ type }) => type === "total")
        .map(({ v }) => String(v).split(" ")[0]),
    ).toEqual([...["5", "10"]]);
  });

  it.each([
    ["sent", "probe p1 number of swift"],
    ["derived within the shard", "probe p1 echo of p1"],
    ["derived across shards", seen7],
    ["derived from the derived", "total t1 fifth of p1"],
  ])("sees a datapoint that was lost, doubled or swapped: %s", (_, stream) => {
    const { raw } = perfect();
    const own = raw.filter((one) => streamOfFact(one) === stream);
    const [first, second] = own;
    if (first === undefined || second === undefined) throw new Error(`too little in ${stream}`);
    const lost = raw.filter((one) => one !== second);
    expect(kindsOf(withRaw(lost))).toEqual({ lost: 2, doubled: 0, disordered: 0, other: 0 });
    const doubled = raw.flatMap((one) => (one === first ? [one, { ...one, seq: one.seq + 0.5 }] : [one]));
    expect(kindsOf(withRaw(doubled))).toMatchObject({ lost: 0, doubled: 2, disordered: 0 });
    const swapped = raw.map((one) => {
      if (one === first) return { ...second, seq: first.seq };
      return one === second ? { ...first, seq: second.seq } : one;
    });
    expect(kindsOf(withRaw(swapped))).toEqual({ lost: 0, doubled: 0, disordered: 2, other: 0 });
  });

  it("sees a run of a hook that answered twice under other numbers", () => {
    const raw = perfect().raw.map((one) => {
      return streamOfFact(one) === seen7 && String(one.v).startsWith("7 ") ? { ...one, v: "7 key-of-m1-6p1" } : one;
    });
    const { other } = checkClusterFacts(withRaw(raw));
    expect(other).toEqual([expect.stringMatching(/^\d+ runs of hooks answered, \d+ of them distinct$/)]);
  });

  it("sees what nobody sent", () => {
    const raw = [...perfect().raw, fact({ type: "probe", eid: "p3", attr: "number", src: "swift", v: 1 }, 900)];
    expect(checkClusterFacts(withRaw(raw)).other).toEqual([
      "log: unexpected: probe p3 number of swift: 1",
      "history: unexpected: probe p3 number of swift: 1",
    ]);
  });

  it("sees an entity in two shards, one that was not applied to its end, and one that counts wrong", () => {
    const raw = perfect().raw.map((one) =>
      String(one.v).startsWith("10 ") && one.type === "total" ? { ...one, shard: 9 } : one,
    );
    expect(checkClusterFacts({ ...perfect(), raw }).other).toEqual(["in several shards: total t1"]);
    const { entities } = perfect();
    const behind = entities.map((one) => (one.eid === "p2" ? { ...one, applied: 1 } : one));
    expect(checkClusterFacts({ ...perfect(), entities: behind }).other).toEqual([
      expect.stringMatching(/^applied of probe p2 is 1, the log ends at \d+$/),
    ]);
    const twice = entities.map((one) => (one.eid === "m1" ? { ...one, state: { seen: { ...state, n: 13 } } } : one));
    expect(checkClusterFacts({ ...perfect(), entities: twice }).other).toEqual([
      "mirror m1 counts 13 of seen, the log 12",
    ]);
    const gone = entities.filter(({ eid }) => eid !== "p2");
    expect(checkClusterFacts({ ...perfect(), entities: gone }).other).toEqual(["no entity: probe p2"]);
  });

  it("sees a history that differs from the log, dead letters, refusals and logs that are not processed", () => {
    const { history } = perfect();
    expect(checkClusterFacts({ ...perfect(), history: history.slice(1) }).lost).toHaveLength(1);
    const logs = [{ shard: 3, end: 5, watermark: 4, delivered: 4 }];
    const facts = { ...perfect(), refused: ["probe p1"], deadLetters: ["1/2 hook"], logs };
    expect(checkClusterFacts(facts).other).toEqual([
      "refused: probe p1",
      "dead letter: 1/2 hook",
      "shard 3 ends at 5: watermark 4, delivered 4",
    ]);
  });
});

const state = { v: 0, t1: 0, t2: 0, c: 1, n: 0 };

type Place = Pick<RawFact, "type" | "eid" | "attr" | "src" | "v">;

function fact(place: Place, seq: number): RawFact {
  return { ...place, t1: 1, t2: 1, c: 1, shard: place.type.length, seq };
}

/** What a run without faults leaves behind. */
function perfect(): ClusterFacts {
  const raw: RawFact[] = [];
  for (const [stream, { step, last }] of expectStreams(sent)) {
    const [type = "", eid = "", attr = "", , src = ""] = stream.split(" ");
    for (let number = step; number <= last; number += step) {
      const v = attr === "number" ? number : `${number} key-of-${eid}-${attr}-${src}-${number}`;
      raw.push(
        fact({ type, eid, attr, src, v: attr === "seen" ? `${number} key-of-m1-${number}${src}` : v }, raw.length + 1),
      );
    }
  }
  return withRaw(raw);
}

/** The facts of a run whose log is `raw` and whose state follows from it. */
function withRaw(raw: readonly RawFact[]): ClusterFacts {
  const entities = new Map<string, EntityFact>();
  for (const { type, eid, attr, seq } of raw) {
    const before = entities.get(`${type} ${eid}`)?.state ?? {};
    const n = (before[attr]?.n ?? 0) + 1;
    entities.set(`${type} ${eid}`, { type, eid, applied: seq, state: { ...before, [attr]: { ...state, n } } });
  }
  return { sent, raw, entities: [...entities.values()], history: raw, refused: [], deadLetters: [], logs: [] };
}

function streamOfFact({ type, eid, attr, src }: RawFact): string {
  return `${type} ${eid} ${attr} of ${src}`;
}

function kindsOf(facts: ClusterFacts): Record<keyof Verdict, number> {
  const { lost, doubled, disordered, other } = checkClusterFacts(facts);
  return { lost: lost.length, doubled: doubled.length, disordered: disordered.length, other: other.length };
}
