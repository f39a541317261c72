import type { LooseDatapoint } from "../../modules/datapoint.ts";
import { parseJsonText } from "../../modules/json-value.ts";
import type { Datapoint, Value } from "../../proto/gen/starling_pb.ts";
import { JsonText, type PlainDatapoint } from "../../proto/read-batch.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import { unreachable } from "../../proto/unreachable.ts";

/** What a datapoint of the wire holds, as protobuf-es or the batch reader read it. */
export type WireDatapoint = PlainDatapoint | Pick<Datapoint, "type" | "eid" | "attr" | "v" | "t1" | "t2" | "c" | "src">;

/** A datapoint of the wire, ready for the check against the model. Throws INVALID_VALUE for JSON text that is none. */
export function looseOf(datapoint: WireDatapoint): LooseDatapoint {
  if (isLoose(datapoint)) return datapoint;
  const { v } = datapoint;
  return {
    type: datapoint.type,
    eid: datapoint.eid,
    attr: datapoint.attr,
    v: v instanceof JsonText ? parseJsonText(v.text) : parseWireValue(v),
    t1: datapoint.t1,
    t2: datapoint.t2,
    c: datapoint.c,
    src: datapoint.src,
  };
}

/** The JavaScript value of a wire value: an int64 beyond 2^53 becomes a bigint. Throws INVALID_VALUE. */
export function parseWireValue(value: Value | undefined): unknown {
  const kind = value?.kind;
  switch (kind?.case) {
    case "string":
    case "double":
    case "bool":
      return kind.value;
    case "int64": {
      const number = Number(kind.value);
      return Number.isSafeInteger(number) ? number : BigInt(kind.value);
    }
    case "json":
      return parseJsonText(kind.value);
    case undefined:
      throw new StarlingError("INVALID_VALUE", "v is missing");
    default:
      return unreachable(kind);
  }
}

/** Most datapoints come out of the batch reader as the check wants them. */
function isLoose(datapoint: WireDatapoint): datapoint is PlainDatapoint {
  return typeof datapoint.v !== "object" && datapoint.v !== undefined;
}
