import type { MessageInitShape } from "@bufbuild/protobuf";
import type { Value } from "../../modules/datapoint.ts";
import { readEid } from "../../modules/eid.ts";
import type { RecordView } from "../../modules/hook.ts";
import type { AttributeSpec, EntitySpec } from "../../modules/model.ts";
import type {
  AnswerSchema,
  MessageResultSchema,
  Place,
  RecordSchema,
  RowSchema,
  Record as WireRecord,
  MessageResult as WireResult,
  Row as WireRow,
} from "../../proto/gen/peer_pb.ts";
import { toEpoch, toSeq, toShardId } from "../../proto/ids.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import type { LogPlace, OwnedRecord } from "../engine.ts";
import { createEntity } from "../lane/entity.ts";
import { restoreEntity } from "../lane/entity-state.ts";
import { viewOf } from "../lane/entity-view.ts";
import { errorOf, failureOf, type MessageResult } from "../lane/message-result.ts";
import type { RawRow } from "../store/store.ts";
import { readProblem, writeProblem } from "./peer-problem.ts";

/** A record as it travels: the text in which it is stored, large values in their places. Raises TOO_LARGE. */
export function writeRecord(spec: EntitySpec, record: OwnedRecord): MessageInitShape<typeof RecordSchema> {
  const { view, createdAt, place, ttlTokens } = record;
  return { state: stateOf(spec, view), createdAt, place, ttlJson: JSON.stringify(ttlTokens) };
}

/** What {@link writeRecord} wrote; attributes that this node's model does not have are not seen. */
export function readRecord(spec: EntitySpec, eid: string, record: WireRecord): OwnedRecord {
  const { state, createdAt } = record;
  const place = readPlace(record.place);
  const entity = createEntity(spec, eid, readEid(spec, eid));
  const { shard, seq } = place;
  restoreEntity(entity, {
    shard,
    type: spec.id,
    eid,
    created: seq,
    createdAt,
    applied: seq,
    state,
    tombstone: false,
  });
  const ttlTokens = JSON.parse(record.ttlJson) as Record<string, number>;
  return { view: viewOf(entity, null), createdAt, place, ttlTokens };
}

/** What a message came to, as it travels: without the state, which nobody asks for. */
export function writeResult(result: MessageResult): MessageInitShape<typeof MessageResultSchema> {
  if (result.kind === "failure") return { kind: { case: "failure", value: writeProblem(errorOf(result)) } };
  return { kind: { case: "reply", value: result.reply } };
}

/** What {@link writeResult} wrote. */
export function readResult({ kind }: WireResult): MessageResult {
  if (kind.case === "failure") return failureOf(readProblem(kind.value));
  return { kind: "change", state: null, reply: kind.value ?? "null" };
}

/** A place in a log, as typed numbers. */
export function readPlace(place: Pick<Place, "shard" | "epoch" | "seq"> | undefined): LogPlace {
  const { shard, epoch, seq } = place ?? { shard: 0, epoch: 0, seq: 0 };
  return { shard: toShardId(shard), epoch: toEpoch(epoch), seq: toSeq(seq) };
}

/** A row of the log, as it travels. */
export function writeRow(row: RawRow): MessageInitShape<typeof RowSchema> {
  const { src, t1, t2, ...rest } = row;
  return { ...rest, src: src ?? undefined, t1: t1 ?? undefined, t2: t2 ?? undefined };
}

/** What {@link writeRow} wrote. */
export function readRow(row: WireRow): RawRow {
  const { shard, seq, at, type, eid, attr, src, t1, t2, c, json } = row;
  const place = { shard: toShardId(shard), seq: toSeq(seq), at };
  return { ...place, type, eid, attr, src: src ?? null, t1: t1 ?? null, t2: t2 ?? null, c, json };
}

/** Roughly the size of an answer on its way. */
export function bytesOfAnswer({ kind }: MessageInitShape<typeof AnswerSchema>): number {
  switch (kind?.case) {
    case "record":
      return answerBytes + (kind.value.state?.length ?? 0) + (kind.value.ttlJson?.length ?? 0);
    case "rows":
      return (kind.value.rows ?? []).reduce((sum, { json }) => sum + answerBytes + (json?.length ?? 0), answerBytes);
    case "letter":
    case "inspected":
      return answerBytes + kind.value.length;
    case "result":
      return answerBytes + (kind.value.kind?.case === "reply" ? kind.value.kind.value.length : 0);
    default:
      return answerBytes;
  }
}

/** Of an answer, or a row, beside its texts. */
const answerBytes = 50;
/** A client is sent no larger record either. */
const recordMaxLength = 64 * 1024 * 1024;

function stateOf(spec: EntitySpec, view: RecordView): string {
  const members: string[] = [];
  let length = 0;
  for (const name of view.attributes()) {
    const latest = view.latest(name);
    const attribute = spec.attributes.get(name);
    if (latest === undefined || attribute === undefined) continue;
    const { t1, t2, c, count } = latest;
    const member = `"${name}":{"v":${jsonOf(attribute, latest.v)},"t1":${t1},"t2":${t2},"c":${c},"n":${count}}`;
    length += member.length;
    if (length > recordMaxLength) {
      throw new StarlingError("TOO_LARGE", `a record of ${spec.id} of more than ${recordMaxLength} characters of JSON`);
    }
    members.push(member);
  }
  return `{${members.join(",")}}`;
}

/**
 * Of a value without a type nothing but its JSON text is known; it holds no bigint, as it was parsed from such text.
 */
function jsonOf({ dataType }: AttributeSpec, value: Value): string {
  return dataType === null ? JSON.stringify(value) : dataType.write(value);
}
