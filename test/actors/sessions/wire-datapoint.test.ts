import { fromBinary } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import { looseOf } from "../../../actors/sessions/wire-datapoint.ts";
import { encodeBatches, encodeBatchMessage } from "../../../proto/client-batch.ts";
import { ClientMessageSchema, type Datapoint } from "../../../proto/gen/starling_pb.ts";
import { createBatchReader, JsonText } from "../../../proto/read-batch.ts";

const reader = createBatchReader();

describe("a datapoint of the wire", () => {
  test("is the same for the check whoever has read it", () => {
    const values = ["t", "", "5", 5, -0, 2n ** 62n, 2 ** 53, true, false, 1.5, null, { a: [1, "é"] }, [2n ** 60n], {}];
    for (const v of values) {
      for (const more of [{}, { t1: 0, t2: -1.5, c: 0, src: "" }]) {
        const [batch] = encodeBatches([{ type: "thing", eid: "a", attr: "any", v, ...more }], false);
        if (batch === undefined) throw new Error("no batch");
        const bytes = encodeBatchMessage(batch, 1, null);
        const [plain] = reader.readPlain(bytes)?.kind.value.datapoints ?? [];
        const { value } = fromBinary(ClientMessageSchema, bytes).kind;
        const [message] = (value as { datapoints: Datapoint[] }).datapoints;
        if (plain === undefined || message === undefined) throw new Error("no datapoint");
        expect(looseOf(plain)).toEqual(looseOf(message));
        expect(looseOf(plain)).toMatchObject({ type: "thing", eid: "a", attr: "any", v, ...more });
      }
    }
  });

  test("without a value or with bad JSON is refused, whoever has read it", () => {
    const rest = { type: "thing", eid: "a", attr: "any", t1: undefined, t2: undefined, c: undefined, src: undefined };
    const missing = expect.objectContaining({ code: "INVALID_VALUE", message: "v is missing" });
    expect(() => looseOf({ ...rest, v: undefined })).toThrow(missing);
    expect(() => looseOf({ ...rest, v: { $typeName: "starling.v1.Value", kind: { case: undefined } } })).toThrow(
      missing,
    );
    const json = expect.objectContaining({ code: "INVALID_VALUE", message: 'expected JSON text, found "{"' });
    expect(() => looseOf({ ...rest, v: new JsonText("{") })).toThrow(json);
    const value = { $typeName: "starling.v1.Value" as const, kind: { case: "json" as const, value: "{" } };
    expect(() => looseOf({ ...rest, v: value })).toThrow(json);
  });
});
