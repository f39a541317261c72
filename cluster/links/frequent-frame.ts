import { BinaryReader, BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { toNodeId } from "../../proto/ids.ts";
import type { LinkFrame } from "./link-frame.ts";

/**
 * The two frames that come again and again, beats and batches, written and read by hand: the bytes that protobuf-es would
 * write, without the message objects, which cost a quiet node more than all that surrounds them. Bytes in any other form are
 * left to protobuf-es, which alone decides what is accepted.
 */
export type FrequentFrame = Extract<LinkFrame, { readonly kind: "beat" | "batch" }>;

/** Field numbers of proto/link.proto. */
const frameFields = { beat: 5, batch: 6 } as const;
const beatFields = { number: 1, echo: 2, reaches: 3, heldMs: 4 } as const;
const batchFields = { bodies: 1, returnedBytes: 2 } as const;

/** A frame as bytes. */
export function writeFrequentFrame(frame: FrequentFrame): Uint8Array<ArrayBuffer> {
  const writer = new BinaryWriter();
  writer.tag(frameFields[frame.kind], WireType.LengthDelimited).fork();
  if (frame.kind === "beat") {
    writeCount(writer, beatFields.number, frame.number);
    writeCount(writer, beatFields.echo, frame.echo);
    for (const node of frame.reaches) writer.tag(beatFields.reaches, WireType.LengthDelimited).string(node);
    if (frame.heldMs !== null) writer.tag(beatFields.heldMs, WireType.Bit64).double(frame.heldMs);
  } else {
    for (const body of frame.bodies) writer.tag(batchFields.bodies, WireType.LengthDelimited).bytes(body);
    writeCount(writer, batchFields.returnedBytes, frame.returnedBytes);
  }
  return writer.join().finish();
}

/** The frame that stands in bytes; null: another one, or one that protobuf-es has to judge. */
export function readFrequentFrame(bytes: Uint8Array): FrequentFrame | null {
  try {
    const reader = new BinaryReader(bytes);
    const tag = reader.uint32();
    const end = reader.uint32() + reader.pos;
    if (end !== bytes.length) return null;
    if (tag === tagOf(frameFields.beat, WireType.LengthDelimited)) return readBeat(reader);
    return tag === tagOf(frameFields.batch, WireType.LengthDelimited) ? readBatch(reader) : null;
  } catch {
    // An end within a number, text that is not UTF-8: protobuf-es finds the same, and says so.
    return null;
  }
}

function readBeat(reader: BinaryReader): FrequentFrame | null {
  const reaches: string[] = [];
  let [number, echo] = [0, 0];
  let heldMs: number | null = null;
  while (reader.pos < reader.len) {
    const tag = reader.uint32();
    if (tag === tagOf(beatFields.number, WireType.Varint)) number = reader.uint32();
    else if (tag === tagOf(beatFields.echo, WireType.Varint)) echo = reader.uint32();
    else if (tag === tagOf(beatFields.reaches, WireType.LengthDelimited)) reaches.push(reader.string());
    else if (tag === tagOf(beatFields.heldMs, WireType.Bit64)) heldMs = reader.double();
    else return null;
  }
  return { kind: "beat", number, echo, heldMs, reaches: reaches.map(toNodeId) };
}

function readBatch(reader: BinaryReader): FrequentFrame | null {
  const bodies: Uint8Array[] = [];
  let returnedBytes = 0;
  while (reader.pos < reader.len) {
    const tag = reader.uint32();
    if (tag === tagOf(batchFields.bodies, WireType.LengthDelimited)) bodies.push(reader.bytes());
    else if (tag === tagOf(batchFields.returnedBytes, WireType.Varint)) returnedBytes = reader.uint32();
    else return null;
  }
  return { kind: "batch", bodies, returnedBytes };
}

function writeCount(writer: BinaryWriter, field: number, count: number): void {
  if (count > 0) writer.tag(field, WireType.Varint).uint32(count);
}

function tagOf(field: number, type: WireType): number {
  return field * 8 + type;
}
