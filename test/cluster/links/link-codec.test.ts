import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { readFrequentFrame } from "../../../cluster/links/frequent-frame.ts";
import { decodeFrame, encodeFrame } from "../../../cluster/links/link-codec.ts";
import type { LinkFrame } from "../../../cluster/links/link-frame.ts";
import { FrameSchema } from "../../../proto/gen/link_pb.ts";
import { toNodeId } from "../../../proto/ids.ts";

const [a, b] = [toNodeId("a-1"), toNodeId("b-1")];
const hello = {
  clusterId: "c1",
  protocolMin: 1,
  protocolMax: 2,
  node: a,
  name: "a",
  meant: b,
  modelHash: "h",
  creditBytes: 16_777_216,
  connection: 3,
};
const batch: LinkFrame = { kind: "batch", bodies: [new Uint8Array([1, 2]), new Uint8Array()], returnedBytes: 9 };
const frames: readonly LinkFrame[] = [
  { kind: "hello", hello },
  { kind: "welcome", hello },
  { kind: "refusal", code: "WRONG_CLUSTER", message: "no" },
  { kind: "ready", order: 5 },
  { kind: "beat", number: 6, echo: 7, heldMs: 12.5, reaches: [a, b] },
  { kind: "beat", number: 6, echo: 0, heldMs: null, reaches: [] },
  batch,
  { kind: "relay", from: a, to: b, connection: 4, frame: batch },
  { kind: "relay-end", from: a, to: b, connection: 4 },
  { kind: "farewell" },
];

describe("frames", () => {
  for (const frame of frames) {
    it(`${frame.kind} comes back as it was`, () => {
      const back = decodeFrame(encodeFrame(frame));
      expect(back).toEqual(frame);
    });
  }

  it("that come again and again have the bytes of protobuf-es, and what it alone accepts is left to it", () => {
    const many = frames.filter((frame) => frame.kind === "beat" || frame.kind === "batch");
    expect(many).toHaveLength(3);
    for (const frame of many) {
      const bytes = new Uint8Array(encodeFrame(frame));
      expect(readFrequentFrame(bytes)).toEqual(frame);
      expect(toBinary(FrameSchema, fromBinary(FrameSchema, bytes))).toEqual(bytes);
      const length = bytes[1] ?? 0;
      const withUnknownField = new Uint8Array([bytes[0] ?? 0, length + 2, ...bytes.subarray(2), 0x78, 1]);
      expect(readFrequentFrame(withUnknownField)).toBe(null);
      expect(decodeFrame(withUnknownField)).toEqual(frame);
    }
  });

  it("hand messages over as plain bytes, never as Buffers", () => {
    const back = decodeFrame(encodeFrame(batch));
    expect(back.kind === "batch" && back.bodies.map((body) => Buffer.isBuffer(body))).toEqual([false, false]);
  });

  it("of no known kind, and bytes that are no frame, are refused as INVALID_ARGUMENT", () => {
    for (const bytes of [new Uint8Array(), new Uint8Array([255, 255, 255]), new Uint8Array([0xfa, 0x01, 0x00])]) {
      expect(() => decodeFrame(bytes)).toThrow(expect.objectContaining({ code: "INVALID_ARGUMENT" }));
    }
  });

  it("with a code of a later version are UNAVAILABLE", () => {
    const later = encodeFrame({ kind: "refusal", code: "BUSY", message: "" });
    later.write("NEWS", later.indexOf("BUSY"));
    expect(decodeFrame(later)).toEqual({ kind: "refusal", code: "UNAVAILABLE", message: "" });
  });
});
