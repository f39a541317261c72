import { expect, test } from "vitest";
import { callStream, callUnary, dial } from "../../proto/client-call.ts";
import { Entities } from "../../proto/gen/starling_pb.ts";
import { assertWellFormedFields } from "../../proto/well-formed.ts";

test("a call with half of a surrogate pair is refused before it asks anybody", async () => {
  const nobody = dial("127.0.0.1:1");
  const refused = expect.objectContaining({
    code: "INVALID_ARGUMENT",
    message: 'eid: expected text without a lone surrogate, found "a\\ud800"',
  });
  try {
    const { get, raw } = Entities.method;
    await expect(callUnary(nobody, get, { type: "thing", eid: "a\ud800" }, 5_000)).rejects.toEqual(refused);
    const rows = callStream(nobody, raw, { type: "thing", eid: "a\ud800" }, undefined);
    await expect(rows.next()).rejects.toEqual(refused);
  } finally {
    nobody.grpc.close();
  }
});

test("texts are looked at however deep they are, and bytes are none", () => {
  expect(() => assertWellFormedFields({ a: [{ b: "ok" }, { c: "\udfff" }] })).toThrow(/^c: expected text/);
  assertWellFormedFields({ a: new Uint8Array(3), b: null, c: 1n, d: "😀" });
});
