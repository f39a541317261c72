import { expect, test } from "vitest";
import { applyTtl, createEntity, type Entity } from "../../../actors/lane/entity.ts";
import { restoreEntity, writeState } from "../../../actors/lane/entity-state.ts";
import { toSeq, toShardId } from "../../../proto/ids.ts";
import { configModel } from "../../support/config-model.ts";

const texts = Array.from({ length: 400 }, (_, i) => `text${i}`);
const model = configModel({ thing: Object.fromEntries(texts.map((id) => [id, "plain string"])) });
const spec = model.entities.get("thing");
if (spec === undefined) throw new Error("no type thing");

/** An entity with these JSON texts, the first ones of its attributes. */
function entityWith(values: readonly string[]): Entity {
  const entity = createEntity(spec as NonNullable<typeof spec>, "t-1", "t-1");
  for (const [index, value] of values.entries()) {
    entity.values[index] = value;
    entity.numbers.splice(
      4 * index,
      4,
      1_700_000_000_123 + index,
      1_700_000_000_456,
      index % 2 === 0 ? 1 : 0.25,
      index,
    );
  }
  return entity;
}

function restored(state: string): Entity {
  const entity = entityWith([]);
  const stored = { shard: toShardId(0), type: "thing", eid: "t-1", created: toSeq(1), createdAt: 1, applied: toSeq(1) };
  restoreEntity(entity, { ...stored, state, tombstone: false });
  return entity;
}

test("a state is JSON, and reads back as it was: narrow, wide, and longer than a page", () => {
  const cases = {
    narrow: ['"a"', '"é"', "1"],
    wide: ['"漢字"', '"a"', '"🐦"'],
    long: texts.map((_, i) => JSON.stringify(`${i} ${"x".repeat(i)}`)),
    wideAndLong: texts.map((_, i) => JSON.stringify(i % 7 === 0 ? "Ω".repeat(i) : "y".repeat(300))),
  };
  for (const values of Object.values(cases)) {
    const entity = entityWith(values);
    const state = writeState(entity);
    const parsed = JSON.parse(state) as Record<string, object>;
    expect(Object.keys(parsed)).toEqual(texts.slice(0, values.length));
    expect(parsed[texts[1] ?? ""]).toEqual({
      v: JSON.parse(values[1] ?? ""),
      t1: 1_700_000_000_124,
      t2: 1_700_000_000_456,
      c: 0.25,
      n: 1,
    });
    const again = restored(state);
    expect(again.values.slice(0, values.length)).toEqual(values);
    expect(again.numbers).toEqual(entity.numbers);
    expect(writeState(again)).toBe(state);
  }
});

test("nothing, tokens alone, and attributes that the model has no more", () => {
  expect(writeState(entityWith([]))).toBe("{}");
  const tokens = entityWith([]);
  applyTtl(tokens, { base: 1_700_000_000_000 });
  expect(writeState(tokens)).toBe('{"#ttl":{"base":1700000000000}}');
  const gone = '{"gone":{"v":[1,"}"],"t1":1,"t2":1,"c":1,"n":1}}';
  expect(writeState(restored(gone))).toBe(gone);
  const state = `{"text0":{"v":"a","t1":1,"t2":2,"c":1,"n":1},${gone.slice(1, -1)},"#ttl":{"base":5}}`;
  expect(writeState(restored(state))).toBe(state);
});
