import { describe, expect, it } from "vitest";
import { canonicalEid, eidText, parseEid, readEid } from "../../modules/eid.ts";
import type { EidType, EntitySpec } from "../../modules/model.ts";
import { testModel } from "../support/test-model.ts";

function entity(idDataType: EidType): EntitySpec {
  const base = testModel({ e: {} }).entities.get("e");
  if (base === undefined) throw new Error("no entity");
  return { ...base, idDataType };
}

describe("eids", () => {
  it.each<[EidType, unknown, string]>([
    ["string", "a/b #_", "a/b #_"],
    ["int", "5", "5"],
    ["int", "5.0", "5"],
    ["int", 5, "5"],
    ["int", " -5", "-5"],
    ["int", "9223372036854775807", "9223372036854775807"],
    ["ipv4", 1, "0.0.0.1"],
    ["ipv6", "2001:DB8:0::1", "2001:db8::1"],
    ["mac", "AA-BB-CC-DD-EE-FF", "aa:bb:cc:dd:ee:ff"],
  ])("a %s eid %s is %s, and text and typed id are two forms of one", (type, input, text) => {
    const spec = entity(type);
    expect(canonicalEid(spec, input)).toBe(text);
    expect(eidText(spec, readEid(spec, text))).toBe(text);
    expect(readEid(spec, text)).toEqual(parseEid(type, input));
  });
  it.each<[EidType, unknown]>([
    ["string", 5],
    ["string", ""],
    ["string", null],
    ["string", "a\u0000"],
    ["string", "\udfff"],
    ["int", "x"],
    ["int", 5.7],
    ["int", null],
    ["int", "9223372036854775808"],
    ["int", 2 ** 60],
    ["ipv4", "1.2.3"],
    ["ipv6", "1.2.3.4"],
    ["mac", "aabb"],
  ])("a %s eid %s is refused", (type, input) => {
    expect(() => parseEid(type, input)).toThrow(expect.objectContaining({ code: "INVALID_EID" }));
  });
  it("takes 1,024 bytes of UTF-8 and no more", () => {
    expect(parseEid("string", `${"€".repeat(341)}x`)).toHaveLength(342);
    expect(() => parseEid("string", "€".repeat(342))).toThrow(expect.objectContaining({ code: "TOO_LARGE" }));
    expect(parseEid("string", "x".repeat(1024))).toHaveLength(1024);
    expect(() => parseEid("string", "x".repeat(1025))).toThrow(expect.objectContaining({ code: "TOO_LARGE" }));
  });
});
