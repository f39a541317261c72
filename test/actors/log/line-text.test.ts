import { expect, test } from "vitest";
import {
  createLineText,
  lengthOf,
  put,
  putPlain,
  putQuoted,
  putUnit,
  takeText,
} from "../../../actors/log/line-text.ts";
import { putHex32, putNumber, putTime } from "../../../actors/log/number-text.ts";

const texts = [
  "",
  "a",
  "tab\t",
  'say "it"',
  "back\\slash",
  "é",
  "Ж",
  "😀",
  "\ud800",
  "\u0000",
  "x".repeat(300),
  "y".repeat(15),
];
const numbers = [0, -0, 1, 9, 10, 99, 100, 1_000_000, 999_999_999, 1e9, 2 ** 40, -1, 0.5, 1e21];
const times = [0, 1, 1e12 - 1, 1e12, 1e12 + 0.5, 1_767_225_600_001, 4_102_444_800_999, 1e13 - 1, 1e13, -1];

test("a text is the same with any page, and without one", () => {
  for (const page of [null, ...[0, 1, 8, 9, 20, 64, 4096].map((size) => Buffer.alloc(size))]) {
    const text = createLineText(page);
    let expected = "";
    const check = (added: string) => {
      expected += added;
      expect(lengthOf(text)).toBe(expected.length);
    };
    for (let round = 0; round < 3; round++) {
      for (const piece of texts) {
        put(text, piece);
        check(piece);
        putQuoted(text, piece);
        check(JSON.stringify(piece));
        if (putPlain(text, piece)) check(piece);
        putUnit(text, 9);
        check("\t");
      }
      for (const value of numbers) {
        putNumber(text, value);
        check(String(value));
      }
      for (const ms of times) {
        putTime(text, ms);
        check(String(ms));
      }
      putHex32(text, 0xdeadbeef);
      putHex32(text, 7);
      check("deadbeef00000007");
    }
    putUnit(text, 10);
    expect(takeText(text)).toBe(expected);
  }
});

test("a page serves one text after another", () => {
  const page = Buffer.alloc(16);
  for (const piece of ["first", "second", "a third one, longer than the page", "4"]) {
    const text = createLineText(page);
    put(text, piece);
    putUnit(text, 10);
    expect(takeText(text)).toBe(piece);
  }
  expect(takeText(createLineText(page))).toBe("");
});

test("only printable ASCII is plain", () => {
  const page = Buffer.alloc(512);
  const plain = texts.filter((piece) => putPlain(createLineText(page), piece));
  expect(plain).toEqual(["", "a", "y".repeat(15)]);
});
