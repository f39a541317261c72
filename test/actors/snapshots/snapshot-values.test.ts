import { describe, expect, it } from "vitest";
import { readEntityAt, readMaster, readValues, writeBody, writeEntityAt } from "../../../actors/history/entity-at.ts";
import type { HistoryRule } from "../../../actors/history/history-rule.ts";
import { mergeRuns, observe, type Piece } from "../../../actors/history/history-run.ts";
import { currentValues, nextChange } from "../../../actors/history/history-value.ts";
import { planValues, type ValuesPlan, valuesAt } from "../../../actors/snapshots/snapshot-values.ts";
import type { SnapshotHooks } from "../../../modules/snapshot-hook.ts";
import { configModel } from "../../support/config-model.ts";
import { createRandom, type Random, seedOfRun } from "../../support/random.ts";
import { recordAt, specOf, type Told } from "../../support/record-at.ts";
import { ruleOf } from "../history/history-rules.ts";

const validity = "history_params: {pre_validity: 0s, post_validity: 10s, aggregate: true}";
const model = configModel({
  host: {
    name: "plain string",
    big: "plain int64",
    load: `observations float; ${validity}`,
    ports: `observations int; multi_value: true, ${validity}`,
    peers: "plain array<link<host>>",
    flows: "timeseries",
    tail: "plain string",
  },
  user: { "#": "id_data_type: int", eid: "plain string", note: "plain string" },
});
const host = specOf(model, "host");
const noHooks: SnapshotHooks = { timeseries: new Map(), correlation: [], init: [], finalize: [] };
const second = 1000;
/** So long that it has a row of its own. */
const large = "x".repeat(2_000);

const planAt = (atMs: number): ValuesPlan => planValues("host", noHooks, atMs);
const at = (atMs: number, told: readonly Told[]) => valuesAt(host, recordAt(host, "h", told), planAt(atMs));
const observed = (attr: string, v: unknown, t1: number, t2: number, c = 1): Told => ({ attr, v, t1, t2, c });

describe("an entity at an instant", () => {
  const told = [
    { attr: "name", v: 'a "name"' },
    { attr: "big", v: "9007199254740993" },
    observed("load", 0.5, 0, 10 * second, 0.8),
    observed("ports", 80, 0, 10 * second),
    observed("ports", 22, 2 * second, 4 * second, 0.5),
    { attr: "peers", v: [{ eid: "b" }, { eid: "a" }] },
    { attr: "flows", v: { time: ["1970-01-01T00:00:01"], n: [1] }, t1: second, t2: second },
  ];

  it("has its values as stored, observations with their confidence at that time, and no timeseries", () => {
    expect(writeBody(at(5 * second, told))).toBe(
      '{"eid":"h","name":"a \\"name\\"","big":9007199254740993,"load":0.5,"load#c":0.8,' +
        '"ports":[80,22],"ports#c":[1,0.45],"peers":[{"eid":"b"},{"eid":"a"}]}',
    );
    expect(JSON.parse(writeBody(at(15 * second, told)))).toMatchObject({
      "load#c": 0.4,
      ports: [80],
      "ports#c": [0.5],
    });
    expect(JSON.parse(writeBody(at(20 * second, told)))).not.toHaveProperty("load");
  });

  it("shows hooks typed values, in which nothing can be changed", () => {
    const values = readValues(at(5 * second, told));
    expect(values).toEqual({
      ...{ eid: "h", name: 'a "name"', big: 9007199254740993n, load: 0.5, "load#c": 0.8 },
      ...{ ports: [80, 22], "ports#c": [1, 0.45], peers: [{ eid: "b" }, { eid: "a" }] },
    });
    expect(() => (values.ports as number[]).push(1)).toThrow(TypeError);
    expect(() => ((values.peers as { eid: string }[])[0] as { eid: string }).eid).not.toThrow();
    expect(() => Object.assign((values.peers as object[])[0] ?? {}, { eid: "c" })).toThrow(TypeError);
  });

  it.each(["long", "short"] as const)("is the same again when it was written and read, from a %s state", (form) => {
    const plan = { ...planAt(5 * second), part: { newest: null }, master: true };
    const entity = valuesAt(host, recordAt(host, "h", [...told, { attr: "tail", v: large }], 7, form), plan);
    const again = readEntityAt(host, "h", writeEntityAt(entity));
    expect({ ...again, due: entity.due }).toEqual(entity);
    expect(readMaster(again)).toMatchObject({
      name: { v: 'a "name"', at: 7 },
      big: { v: 9007199254740993n, at: 7 },
      tail: { v: large, at: 7 },
      load: [{ t1: 0, t2: 10 * second, v: 0.5, c: 0.8 }],
      flows: [{ v: { n: [1] } }],
    });
  });

  it("keeps its own id where an attribute has that name", () => {
    const user = specOf(model, "user");
    const record = recordAt(user, 7, [
      { attr: "eid", v: "x" },
      { attr: "note", v: "y" },
    ]);
    const entity = valuesAt(user, record, planValues("user", noHooks, 0));
    expect(writeBody(entity)).toBe('{"eid":7,"note":"y"}');
    expect(readEntityAt(user, "7", writeEntityAt(entity)).texts).toEqual(entity.texts);
  });

  it("knows until when nothing changes by time alone", () => {
    const load = [observed("load", 0.5, 0, 10 * second)];
    expect(at(5 * second, load).due).toBe(10 * second);
    expect(at(12 * second, load).due).toBe(0);
    expect(at(20 * second, load).due).toBeNull();
    expect(at(5 * second, [...load, observed("ports", 1, 8 * second, 9 * second)]).due).toBe(8 * second);
    expect(at(0, [{ attr: "name", v: "n" }]).due).toBeNull();
  });
});

const seed = seedOfRun();

describe(`with observations drawn by seed ${seed}`, () => {
  it("nothing changes before it is due", () => {
    const random = createRandom(seed);
    let changes = 0;
    let calm = 0;
    for (let draw = 0; draw < 200; draw++) {
      const rule = drawRule(random);
      const runs = mergeRuns(rule, [], drawPieces(random));
      const shown = (instant: number) =>
        currentValues(rule, runs, instant)
          .map(({ run, c }) => `${run.value} ${c}`)
          .join();
      for (let now = -10; now < 60; now += 2) {
        const due = nextChange(rule, runs, now) ?? Number.POSITIVE_INFINITY;
        for (let later = now + 0.5; later < Math.min(due, 80); later += 0.5) {
          if (shown(later) !== shown(now)) expect.fail(`draw ${draw}: of ${now} at ${later}: ${shown(later)}`);
          calm++;
        }
        if (due < 80) changes++;
      }
    }
    expect(Math.min(changes, calm)).toBeGreaterThan(1000);
  });
});

function drawRule(random: Random): HistoryRule {
  return ruleOf({
    preMs: random.between(0, 6),
    postMs: random.between(0, 6),
    expireMs: [null, null, 0, 3, Number.POSITIVE_INFINITY][random.between(0, 4)] ?? null,
    multiValue: random.next() < 0.4,
    merges: random.next() < 0.7,
  });
}

function drawPieces(random: Random): Piece[] {
  return Array.from({ length: random.between(1, 6) }, () => {
    const t1 = random.between(0, 45);
    const value = ["a", "b", "c"][random.between(0, 2)] ?? "a";
    return observe(value, t1, t1 + random.between(0, 9), random.between(0, 4) / 4);
  });
}
