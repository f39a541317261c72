import { describe, expect, it } from "vitest";
import { canonicalJson, mapList, parseJsonText, setKey, writeJsonText } from "../../modules/json-value.ts";
import { createRandom, seedOfRun } from "../support/random.ts";

const seed = seedOfRun();
const random = createRandom(seed);

describe("JSON text", () => {
  it(`keeps whole numbers exact wherever they stand and however long they are (seed ${seed})`, () => {
    for (let i = 0; i < 5000; i++) {
      const before = "x".repeat(random.between(0, 40));
      const digits = Array.from({ length: random.between(0, 40) }, () => random.between(0, 9)).join("");
      const whole = `${random.next() < 0.5 ? "-" : ""}${random.between(1, 9)}${digits}`;
      const [text, number, after] = parseJsonText(`["${before}",${whole},"${digits}"]`) as [string, unknown, string];
      const exact = Number.isSafeInteger(Number(whole)) ? Number(whole) : BigInt(whole);
      if (text !== before || number !== exact || after !== digits)
        expect([text, number, after]).toEqual([before, exact]);
    }
  });
  it("knows long whole numbers from long fractions, exponents and texts", () => {
    const texts = ["1.2345678901234567", "1e1", "12345678901234567e2", "-12345678901234567.5"];
    const numbers = texts.map(Number);
    expect(parseJsonText(`[9007199254740993,${texts.join(", ")}]`)).toEqual([9007199254740993n, ...numbers]);
    expect(parseJsonText('{"a":"12345678901234567890","b":999999999999999}')).toEqual({
      a: "12345678901234567890",
      b: 999999999999999,
    });
    expect(() => parseJsonText('{"a":')).toThrow(/expected JSON text, found "\{\\"a\\":"/);
  });
  it(`of a text is what the language writes (seed ${seed})`, () => {
    const marks = [
      '"',
      "\\",
      "/",
      "\n",
      "\u007f",
      "\u2028",
      "é",
      "\ud7ff",
      "\ue000",
      "\uffff",
      "😀",
      "\ud800",
      "\udc00",
    ];
    const units = Array.from({ length: 0x20 }, (_, code) => String.fromCharCode(code));
    for (const mark of [...marks, ...units]) expect(writeJsonText(`a${mark}b`)).toBe(JSON.stringify(`a${mark}b`));
    for (let i = 0; i < 5000; i++) {
      const unit = () =>
        String.fromCharCode(random.next() < 0.8 ? random.between(0x20, 0x7e) : random.between(0, 0xffff));
      const text = Array.from({ length: random.between(0, 20) }, unit).join("");
      if (writeJsonText(text) !== JSON.stringify(text)) expect(writeJsonText(text)).toBe(JSON.stringify(text));
    }
  });
});

describe("values", () => {
  it("may have any key, __proto__ too", () => {
    const input: unknown = JSON.parse('{"b":1,"__proto__":{"x":[1]},"a":null}');
    const canonical = canonicalJson(input, 0);
    expect(JSON.stringify(canonical)).toBe('{"__proto__":{"x":[1]},"a":null,"b":1}');
    expect(Object.getPrototypeOf(canonical)).toBe(Object.prototype);
    const target = {};
    setKey(target, "__proto__", 1);
    setKey(target, "__proto__", 2);
    expect(JSON.stringify(target)).toBe('{"__proto__":2}');
  });
  it("have no holes: a hole counts as nothing", () => {
    const sparse: unknown[] = [];
    sparse[2] = 1;
    expect(mapList(sparse, String)).toEqual(["undefined", "undefined", "1"]);
    expect(() => canonicalJson(sparse, 0)).toThrow(/found nothing/);
  });
});
