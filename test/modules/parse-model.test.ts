import { describe, expect, it } from "vitest";
import { type ConfigProblem, writeProblem } from "../../modules/config-section.ts";
import { parseModel } from "../../modules/parse-model.ts";
import { parseConfigText } from "../../node/config/config-directory.ts";

function parse(texts: Record<string, string>) {
  const problems: ConfigProblem[] = [];
  const files = Object.entries(texts).flatMap(
    ([name, text]) => parseConfigText(`db_entities/${name}.yml`, text, problems) ?? [],
  );
  const model = parseModel(files, problems);
  return { model, problems: problems.map(writeProblem) };
}

const head = (id: string, more = "") => `entity: {id: ${id}, name: ${id}, snapshot: yes${more}}\n`;

describe("a model", () => {
  it("has every default of the reference", () => {
    const { model, problems } = parse({
      e: `${head("e")}attribs:\n  p: {type: plain, name: P, data_type: int}\n  o: {type: observations, name: O, data_type: string, history_params: {max_age: 1d, expire_time: inf, max_items: 5}}\n`,
    });
    expect(problems).toEqual([]);
    expect(model.entities.get("e")).toMatchObject({
      index: 0,
      idDataType: "string",
      snapshot: true,
      lifetime: { type: "immortal" },
    });
    expect(model.entities.get("e")?.attributeList).toMatchObject([
      { id: "p", index: 0, kind: "plain", editable: false, ttlMs: 0, history: null, relation: null, readOnly: false },
      {
        id: "o",
        index: 1,
        history: {
          maxAgeMs: 86_400_000,
          maxItems: 5,
          expireTimeMs: Number.POSITIVE_INFINITY,
          preValidityMs: 0,
          postValidityMs: 0,
          aggregate: true,
        },
      },
    ]);
  });
  it("gives irregular timeseries their implicit series", () => {
    const { model, problems } = parse({
      e: `${head("e")}attribs:\n  a: {type: timeseries, name: A, timeseries_type: irregular}\n  b: {type: timeseries, name: B, timeseries_type: irregular_intervals, series: {n: {data_type: int}}}\n`,
    });
    expect(problems).toEqual([]);
    const [a, b] = model.entities.get("e")?.attributeList ?? [];
    expect([...(a?.timeseries?.series.keys() ?? [])]).toEqual(["time"]);
    expect([...(b?.timeseries?.series.keys() ?? [])]).toEqual(["n", "time_first", "time_last"]);
  });
  it("mirrors a link as a read-only attribute of the target, whichever file comes first", () => {
    const { model, problems } = parse({
      a: `${head("a")}attribs:\n  own: {type: plain, name: own, data_type: int}\n`,
      z: `${head("z", ", id_data_type: int")}attribs:\n  to: {type: plain, name: to, data_type: "array<link<a;mirror=back>>"}\n`,
    });
    expect(problems).toEqual([]);
    expect(model.entities.get("a")?.attributeList[1]).toMatchObject({
      id: "back",
      index: 1,
      readOnly: true,
      relation: { target: "z" },
      description: "Read-only mirror attribute of z.to",
      dataType: { text: "set<link<z>>" },
    });
  });
  it("has a hash that follows the meaning, not names nor order", () => {
    const attribs = (a: string, b: string) => ({ e: `${head("e")}attribs:\n${a}${b}` });
    const a = "  a: {type: plain, name: A, data_type: int}\n";
    const b = "  b: {type: plain, name: B, data_type: 'category<string; x, y>'}\n";
    const { model } = parse(attribs(a, b));
    expect(model.hash).toMatch(/^[0-9a-f]{32}$/);
    expect(parse(attribs(b, a)).model.hash).toBe(model.hash);
    expect(parse(attribs(a.replace("name: A", "name: Z"), b)).model.hash).toBe(model.hash);
    expect(parse(attribs(a.replace("int", "int64"), b)).model.hash).not.toBe(model.hash);
    expect(parse(attribs(a, b.replace("y>", "z>"))).model.hash).not.toBe(model.hash);
  });
});

describe("a wrong model", () => {
  const attr = (line: string) => parse({ e: `${head("e")}attribs:\n  ${line}\n` }).problems;
  it.each([
    ["1a: {type: plain, name: A, data_type: int}", /e\.yml:3: attribs\.1a: not a name/],
    [
      "a: {type: PLAIN, name: A, data_type: int}",
      /attribs\.a\.type: is not one of the choices: did you mean plain\? .*allowed plain, observations/,
    ],
    ["a: {name: A, data_type: int}", /attribs\.a\.type: is missing/],
    ["a: {name: A, data_type: integer}", /attribs\.a\.data_type: not a data type/],
    ["a: {type: plane, name: A, data_type: integer}", /attribs\.a\.data_type: not a data type/],
    ["a: {type: plain, data_type: int}", /attribs\.a\.name: is missing/],
    ["a: {type: plain, name: 5, data_type: int}", /attribs\.a\.name: must be text \(found 5/],
    [
      "a: {type: plain, name: A, data_type: integer}",
      /attribs\.a\.data_type: not a data type \(found "integer"; allowed .*int64/,
    ],
    ["a: {type: plain, name: A}", /attribs\.a\.data_type: is missing/],
    ["a: {type: plain, name: A, data_type: int, editible: true}", /editible: unknown key: did you mean editable\?/],
    ["a: {type: plain, name: A, data_type: int, ttl: 5}", null],
    ["a: {type: plain, name: A, data_type: int, ttl: 1w}", /attribs\.a\.ttl: is not a duration \(found "1w"/],
    ["a: {type: plain, name: A, data_type: int, multi_value: true}", /multi_value: unknown key/],
    ["a: {type: plain, name: A, data_type: link<f>}", /links to an entity type that is not defined: did you mean e\?/],
    ["a: {type: plain, name: A, data_type: link<e;mirror=a>}", /the mirror's name is taken in e/],
    [
      "a: {type: observations, name: A, data_type: int, history_params: {max_items: 0}}",
      /history_params\.max_items: must be a whole number/,
    ],
    ["a: {type: observations, name: A, data_type: int, history_params: {maxage: 1d}}", /did you mean max_age/],
    [
      "a: {type: timeseries, name: A, timeseries_type: regular, series: {n: {data_type: int}}}",
      /time_step: a regular timeseries needs/,
    ],
    ["a: {type: timeseries, name: A, timeseries_type: regular, timeseries_params: {time_step: 1s}}", /needs a series/],
    ["a: {type: timeseries, name: A, timeseries_type: sometimes}", /timeseries_type: is not one of/],
    [
      "a: {type: timeseries, name: A, timeseries_type: irregular, series: {n: {type: int}}}",
      /series\.n\.data_type: is missing/,
    ],
    ["a: nothing", /attribs\.a: must be a map/],
  ])("%s", (line, message) => {
    const problems = attr(line).join("\n");
    if (message === null) expect(problems).toBe("");
    else expect(problems).toMatch(message);
  });
  it.each([
    ["entity: {id: f, name: E, snapshot: true}\nattribs: {}", /entity\.id: the file must be named after/],
    ["entity: {id: e, name: E}\nattribs: {}", /entity\.snapshot: is missing/],
    [
      "entity: {id: e, name: E, snapshot: maybe}\nattribs: {}",
      /entity\.snapshot: must be true or false \(found "maybe"/,
    ],
    ["entity: {id: e, name: E, snapshot: true, id_data_type: float}\nattribs: {}", /id_data_type: is not one of/],
    ["entity: {id: e, name: E, snapshot: true}\nattribs:", /attribs: must be a map \(found null/],
    ["entity: {id: e, name: E, snapshot: true}", /attribs: is missing/],
    ["attribs: {}", /entity: is missing/],
    ["[]", /must be a map/],
    ["entity: {id: e, name: E, snapshot: true, lifetime: {type: ttl}}\nattribs: {}", /lifetime\.on_create: is missing/],
    ["entity: {id: e, name: E, snapshot: true, lifetime: {type: weak}}\nattribs: {}", /a weak entity type needs/],
    ["entity: {id: e, name: E, snapshot: true, lifetime: {type: weak, x: 1}}\nattribs: {}", /lifetime\.x: unknown key/],
    ["entity: {id: e, id: f}", /YAML|unique/],
  ])("%s", (text, message) => expect(parse({ e: text }).problems.join("\n")).toMatch(message));
});
