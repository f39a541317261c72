import { describe, expect, it } from "vitest";
import { checkDatapoint } from "../../modules/check-datapoint.ts";
import { checkTask } from "../../modules/check-task.ts";
import type { ConfigProblem } from "../../modules/config-section.ts";
import { parseModel } from "../../modules/parse-model.ts";

const ts = (kind: string, more: object = {}) => ({ type: "timeseries", name: "t", timeseries_type: kind, ...more });
const oddSeries: unknown = JSON.parse('{"constructor":{"data_type":"int"},"__proto__":{"data_type":"int"}}');
const files = [
  {
    entity: { id: "bus", name: "Bus", snapshot: true, id_data_type: "int" },
    attribs: {
      label: { type: "plain", name: "l", data_type: "string" },
      seats: { type: "plain", name: "s", data_type: "int" },
      speed: { type: "observations", name: "o", data_type: "float" },
      line: { type: "plain", name: "x", data_type: "link<line;mirror=buses>" },
      any: { type: "plain", name: "a", data_type: "json" },
      load: ts("regular", { series: { n: { data_type: "int" } }, timeseries_params: { time_step: "10s" } }),
      odd: ts("regular", { series: oddSeries, timeseries_params: { time_step: "1s" } }),
      stops: ts("irregular", { series: { n: { data_type: "int" } } }),
      rides: ts("irregular_intervals", { series: { n: { data_type: "int64" } } }),
    },
  },
  { entity: { id: "line", name: "Line", snapshot: true }, attribs: {} },
].map((value) => ({ file: `db_entities/${value.entity.id}.yml`, value, lineOf: () => 1 }));
const problems: ConfigProblem[] = [];
const model = parseModel(files, problems);

const check = (attr: string, more: object) =>
  checkDatapoint(model, { type: "bus", eid: 1, attr, v: undefined, ...more });
const refused = (code: string, message: RegExp) =>
  expect.objectContaining({ code, message: expect.stringMatching(message) });

describe("a datapoint", () => {
  it("comes out typed, canonical and complete", () => {
    expect(problems).toEqual([]);
    const datapoint = checkDatapoint(model, { type: "bus", eid: "7", attr: "seats", v: "40", src: "x" });
    expect(datapoint).toMatchObject({
      type: "bus",
      eid: 7,
      attr: "seats",
      v: 40,
      json: "40",
      t1: null,
      t2: null,
      c: 1,
      src: "x",
    });
    expect(datapoint.spec.id).toBe("seats");
  });
  it("of a plain attribute may carry t1 and t2, which are dropped", () => {
    expect(check("label", { v: "x", t1: 5, t2: "nonsense" })).toMatchObject({ t1: null, t2: null });
  });
  it("of observations needs t1, takes it as t2, and refuses a t2 before it", () => {
    expect(check("speed", { v: 1, t1: 1000 })).toMatchObject({ t1: 1000, t2: 1000 });
    expect(check("speed", { v: 1, t1: 1000, t2: 0 })).toMatchObject({ t2: 1000 });
    expect(check("speed", { v: 1, t1: -1000, t2: 0 })).toMatchObject({ t2: 0 });
    expect(check("speed", { v: 1, t1: "2020-01-01", t2: new Date(1577836800500) })).toMatchObject({
      t1: 1577836800000,
      t2: 1577836800500,
    });
    expect(() => check("speed", { v: 1 })).toThrow(refused("INVALID_TIME", /bus\.speed: observations need t1/));
    expect(() => check("speed", { v: 1, t1: "soon" })).toThrow(refused("INVALID_TIME", /found "soon"/));
    expect(() => check("speed", { v: 1, t1: 5, t2: 4 })).toThrow(refused("INVALID_TIME", /t2 is before t1/));
    expect(() => check("speed", { v: 1, t1: 5, t2: true })).toThrow(refused("INVALID_TIME", /t2 is not a time/));
  });
  it.each<[string, object, RegExp]>([
    ["UNKNOWN_TYPE", { type: "tram" }, /no entity type "tram"/],
    ["UNKNOWN_TYPE", { type: null }, /null/],
    ["UNKNOWN_ATTRIBUTE", { attr: "colour" }, /bus has no attribute "colour"/],
    ["UNKNOWN_ATTRIBUTE", { attr: "__proto__" }, /__proto__/],
    ["READ_ONLY", { type: "line", eid: "x", attr: "buses" }, /line\.buses: a mirror/],
    ["INVALID_EID", { eid: "x" }, /eid of bus: expected a whole number/],
    ["INVALID_VALUE", { v: 1 }, /bus\.label: expected text, found 1/],
    ["INVALID_VALUE", { attr: "line", v: { eid: 5 } }, /bus\.line: expected text, found 5/],
    ["INVALID_CONFIDENCE", { c: 1.1 }, /bus\.label/],
    ["INVALID_CONFIDENCE", { c: null }, /null/],
    ["INVALID_CONFIDENCE", { c: Number.NaN }, /NaN/],
    ["INVALID_CONFIDENCE", { c: [] }, /list/],
    ["INVALID_ARGUMENT", { src: 5 }, /src must be text/],
    ["INVALID_ARGUMENT", { src: "\u0000" }, /U\+0000/],
    ["TOO_LARGE", { src: "x".repeat(1025) }, /1024 bytes/],
    ["TOO_LARGE", { v: "x".repeat(1024 * 1024) }, /at most 1048576 bytes of JSON: found 1048578/],
  ])("is refused with %s for %j", (code, more, message) => {
    expect(() => check("label", { v: "x", ...more })).toThrow(refused(code, message));
  });
  it("may hold a value of exactly 1 MiB, counted in bytes", () => {
    expect(check("label", { v: "x".repeat(1024 * 1024 - 2) }).json).toHaveLength(1024 * 1024);
    expect(() => check("label", { v: "€".repeat(400_000) })).toThrow(refused("TOO_LARGE", /1200002/));
    expect(() => check("label", { v: "\u0001".repeat(200_000) })).toThrow(refused("TOO_LARGE", /1200002/));
  });
  it("shows a long found value shortened", () => {
    const error = (() => {
      try {
        check("seats", { v: "x".repeat(5000) });
      } catch (e) {
        return e as Error;
      }
      return new Error("");
    })();
    expect(error.message.length).toBeLessThan(250);
  });
});

describe("a timeseries", () => {
  it("regular: t2 is t1 + n steps, derived when left out; an empty chunk is fine", () => {
    expect(check("load", { v: { n: [1, "2"], extra: 1 }, t1: 0 })).toMatchObject({ t2: 20_000, json: '{"n":[1,2]}' });
    expect(check("load", { v: { n: [1] }, t1: 0, t2: 10_000 })).toMatchObject({ t2: 10_000 });
    expect(check("load", { v: { n: [] }, t1: 5, t2: 5 })).toMatchObject({ t2: 5 });
    expect(() => check("load", { v: { n: [1] }, t1: 0, t2: 10_001 })).toThrow(
      refused("INVALID_TIME", /t1 \+ 1 · 10000 ms/),
    );
    expect(() => check("load", { v: {}, t1: 0 })).toThrow(refused("INVALID_VALUE", /list as series n, found nothing/));
    expect(() => check("load", { v: { n: ["x"] }, t1: 0 })).toThrow(
      refused("INVALID_VALUE", /bus\.load: series n: position 0: expected int/),
    );
    expect(() => check("load", { v: [1], t1: 0 })).toThrow(refused("INVALID_VALUE", /object with the series n/));
    expect(() => check("load", { v: { n: [1] } })).toThrow(refused("INVALID_TIME", /need t1/));
  });
  const time = ["2020-01-01T00:00:00", "2020-01-01T00:00:00.5+00:00"];
  it("irregular: naive times are UTC, t2 is the last time, order and span are checked", () => {
    const chunk = check("stops", { v: { n: [1, 2], time }, t1: "2020-01-01" });
    expect(chunk.json).toBe('{"n":[1,2],"time":["2020-01-01T00:00:00Z","2020-01-01T00:00:00.500000Z"]}');
    expect(chunk.t2).toBe(1577836800500);
    expect(chunk.v).toEqual({ n: [1, 2], time: ["2020-01-01T00:00:00Z", "2020-01-01T00:00:00.500000Z"] });
    const bad = (more: object) => () => check("stops", { v: { n: [1, 2], time }, t1: "2020-01-01", ...more });
    expect(bad({ v: { n: [], time: [] } })).toThrow(refused("INVALID_VALUE", /at least one value/));
    expect(bad({ v: { n: [1], time } })).toThrow(
      refused("INVALID_VALUE", /must all have the same length: found n 1, time 2/),
    );
    expect(bad({ v: { n: [1, 2], time: [...time].reverse() } })).toThrow(refused("INVALID_VALUE", /backwards/));
    expect(bad({ t1: "2020-01-02" })).toThrow(refused("INVALID_TIME", /t1 is after/));
    expect(bad({ t2: "2020-01-01" })).toThrow(refused("INVALID_TIME", /t2 is before the last/));
  });
  it("irregular: a first time is never before a t1 of the same text, whatever the year", () => {
    for (const text of ["9751-05-06T07:08:02.898843Z", "5037-05-06T07:08:04.143398Z", "5661-09-18T23:00:30.409Z"]) {
      const chunk = check("stops", { v: { n: [1], time: [text] }, t1: text, t2: text });
      expect(chunk.t2).toBe(chunk.t1);
    }
  });
  it("takes a hole in a list for a missing value", () => {
    const holed: string[] = [];
    holed[1] = "2020-01-01";
    expect(() => check("stops", { v: { n: [1, 2], time: holed }, t1: 0 })).toThrow(
      refused("INVALID_VALUE", /series time: position 0: expected time, found nothing/),
    );
    expect(() => check("load", { v: { n: new Array(2) }, t1: 0 })).toThrow(refused("INVALID_VALUE", /found nothing/));
  });
  it("may have a series of any name, and never one that it inherits", () => {
    const v: unknown = JSON.parse('{"__proto__":[1,2],"constructor":[3,4],"__proto":[9,9]}');
    const chunk = check("odd", { v, t1: 0 });
    expect(chunk.json).toBe('{"__proto__":[1,2],"constructor":[3,4]}');
    expect(JSON.stringify(chunk.v)).toBe(chunk.json);
    expect(() => check("odd", { v: { constructor: [1] }, t1: 0 })).toThrow(
      refused("INVALID_VALUE", /list as series __proto__, found nothing/),
    );
  });
  it("irregular_intervals: each ends after it begins, t2 is the last end", () => {
    const v = { n: ["9223372036854775807"], time_first: [time[0]], time_last: [time[1]] };
    expect(check("rides", { v, t1: "2020-01-01" })).toMatchObject({
      t2: 1577836800500,
      v: { n: [9223372036854775807n] },
    });
    const swapped = { ...v, time_first: v.time_last, time_last: v.time_first };
    expect(() => check("rides", { v: swapped, t1: 0 })).toThrow(refused("INVALID_VALUE", /position 0/));
  });
});

describe("a task", () => {
  it("needs a datapoint, a TTL token or delete", () => {
    expect(() => checkTask(model, { type: "bus", eid: 1 })).toThrow(
      refused("INVALID_ARGUMENT", /at least a datapoint/),
    );
    expect(() => checkTask(model, { type: "bus", eid: 1, datapoints: [], ttlTokens: {} })).toThrow(/at least/);
    expect(checkTask(model, { type: "bus", eid: "1", delete: true })).toMatchObject({
      eid: "1",
      eidValue: 1,
      delete: true,
      ttlTokens: null,
    });
    expect(checkTask(model, { type: "bus", eid: 1, ttlTokens: { a: "2020-01-01" } }).ttlTokens).toEqual({
      a: 1577836800000,
    });
  });
  it("gives its entity to its datapoints, which may repeat but not contradict it", () => {
    const item = { attr: "seats", v: 5 };
    expect(checkTask(model, { type: "bus", eid: 1, datapoints: [item] }).datapoints[0]).toMatchObject({
      type: "bus",
      eid: 1,
      v: 5,
    });
    expect(
      checkTask(model, { type: "bus", eid: 1, datapoints: [{ ...item, type: "bus", eid: "1" }] }).datapoints,
    ).toHaveLength(1);
    expect(() => checkTask(model, { type: "bus", eid: 1, datapoints: [{ ...item, type: "line" }] })).toThrow(
      refused("INVALID_ARGUMENT", /datapoint 0/),
    );
    expect(() => checkTask(model, { type: "bus", eid: 1, datapoints: [{ ...item, eid: 2 }] })).toThrow(
      refused("INVALID_ARGUMENT", /datapoint 0/),
    );
  });
  it.each<[unknown, string]>([
    [null, "INVALID_ARGUMENT"],
    ["x", "INVALID_ARGUMENT"],
    [{ type: "bus", eid: 1, datapoints: {} }, "INVALID_ARGUMENT"],
    [{ type: "bus", eid: 1, datapoints: [5] }, "INVALID_ARGUMENT"],
    [{ type: "bus", eid: 1, delete: "yes" }, "INVALID_ARGUMENT"],
    [{ type: "bus", eid: 1, ttlTokens: { "a.b": 1 } }, "INVALID_ARGUMENT"],
    [{ type: "bus", eid: 1, ttlTokens: { a: "x" } }, "INVALID_TIME"],
    [{ type: "bus", eid: 1, ttlTokens: [] }, "INVALID_ARGUMENT"],
    [{ type: "no", eid: 1, delete: true }, "UNKNOWN_TYPE"],
    [{ type: "bus", eid: 1, datapoints: [{ attr: "seats", v: "x" }] }, "INVALID_VALUE"],
  ])("%j is refused with %s", (task, code) => {
    expect(() => checkTask(model, task)).toThrow(expect.objectContaining({ code }));
  });
});
