import type { EntitySpec } from "../../modules/model.ts";
import type { Clock } from "../../proto/clock.ts";
import { withDeadline } from "../../proto/deadline.ts";
import { type Seq, type ShardId, toShardId } from "../../proto/ids.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import type { LogPlace, OwnedRecord } from "../engine.ts";
import type { MessageResult } from "../lane/message-result.ts";
import type { StoredDeadLetter } from "../store/store.ts";
import type { Answer, PeerConnection, QuestionInit } from "./peer-connection.ts";
import { readProblem } from "./peer-problem.ts";
import { readRecord, readResult } from "./peer-record.ts";

export interface AskOptions {
  readonly clock: Clock;
  readonly deadlineMs: number;
}

/**
 * An entity's record from another node. Raises what that node raises, BUSY, DEADLINE, and UNAVAILABLE when the link
 * breaks.
 */
export async function askRecord(
  connection: PeerConnection,
  { spec, eid, atLeast }: { readonly spec: EntitySpec; readonly eid: string; readonly atLeast: LogPlace | null },
  options: AskOptions,
): Promise<OwnedRecord | null> {
  const value = { type: spec.id, eid, atLeast: atLeast ?? undefined };
  const { kind } = await ask(connection, { case: "get", value }, `${spec.id} ${eid} was not read`, options);
  if (kind.case === "none") return null;
  if (kind.case === "record") return readRecord(spec, eid, kind.value);
  throw unreadable(kind.case);
}

/** Has another node replay a dead letter. Raises as {@link askRecord} does. */
export async function askLetter(
  connection: PeerConnection,
  id: string,
  options: AskOptions,
): Promise<StoredDeadLetter> {
  const text = `it is unknown whether dead letter ${id} was replayed: there was no answer`;
  const { kind } = await ask(connection, { case: "letter", value: id }, text, options);
  if (kind.case === "letter") return JSON.parse(kind.value) as StoredDeadLetter;
  throw unreadable(kind.case);
}

/** What a message in another node's shard comes to. Raises as {@link askRecord} does. */
export async function askReply(
  connection: PeerConnection,
  { shard, seq }: { readonly shard: ShardId; readonly seq: Seq },
  options: AskOptions,
): Promise<MessageResult> {
  const value = { shard, seq, deadlineMs: options.deadlineMs };
  const text = "the message was taken, but not answered";
  const { kind } = await ask(connection, { case: "reply", value }, text, options);
  if (kind.case === "result") return readResult(kind.value);
  throw unreadable(kind.case);
}

/** What another node says of itself, or of a shard of its: plain data. Raises as {@link askRecord} does. */
export async function askInspection(
  connection: PeerConnection,
  subject: InspectSubject,
  options: AskOptions,
): Promise<unknown> {
  const { kind } = await ask(connection, { case: "inspect", value: subject }, "it did not answer", options);
  if (kind.case === "inspected") return JSON.parse(kind.value) as unknown;
  throw unreadable(kind.case);
}

/** What of a node is looked at: itself, or one of its shards, with one of its entities. */
export interface InspectSubject {
  readonly shard?: ShardId;
  readonly type?: string;
  readonly eid?: string;
}

/** The shard in whose log a dead letter stands: its id is `shard-seq-number`. Null: it is none. */
export function shardOfLetter(id: string): ShardId | null {
  const shard = /^(\d{1,9})-/.exec(id)?.[1];
  return shard === undefined ? null : toShardId(Number(shard));
}

async function ask(
  connection: PeerConnection,
  kind: QuestionInit["kind"],
  text: string,
  options: AskOptions,
): Promise<Answer> {
  let id = 0;
  const answered = new Promise<Answer>((resolve, reject) => {
    id = connection.ask(kind, (answer) => {
      if (answer instanceof StarlingError) reject(answer);
      else if (answer.kind.case === "problem") reject(readProblem(answer.kind.value));
      else resolve(answer);
    });
  });
  try {
    return await withDeadline(answered, { ...options, text });
  } finally {
    connection.forget(id, "silent");
  }
}

function unreadable(found: string | undefined): StarlingError {
  return new StarlingError("VERSION_MISMATCH", `another node answered what this one cannot read: ${found}`);
}
