import type { Seq } from "../../proto/ids.ts";
import { type ErrorCode, StarlingError } from "../../proto/starling-error.ts";

/** What a message came to, as the log records it with all that `receive` returned. */
export type MessageResult = MessageChange | MessageFailure;

export interface MessageChange {
  readonly kind: "change";
  /** The new state as JSON text; null: it stays. */
  readonly state: string | null;
  /** JSON text. */
  readonly reply: string;
}

export interface MessageFailure {
  readonly kind: "failure";
  readonly code: ErrorCode;
  readonly message: string;
}

/** `receive` failed for good. */
export function failureOf({ code, message }: StarlingError): MessageFailure {
  return { kind: "failure", code, message: message.slice(0, messageMaxLength) };
}

/** The error that {@link failureOf} was made of. */
export function errorOf({ code, message }: MessageFailure): StarlingError {
  return new StarlingError(code, message);
}

const messageMaxLength = 4000;

/** A result as a line of the log, `r state reply failure`: JSON texts, which hold neither tabs nor newlines. */
export function writeResult(result: MessageResult): string {
  if (result.kind === "failure") return `r\t\t\t${JSON.stringify([result.code, result.message])}`;
  return `r\t${result.state ?? ""}\t${result.reply}\t`;
}

/** What {@link writeResult} wrote; null: another line. */
export function readResult(line: string | undefined): MessageResult | null {
  if (line === undefined || !line.startsWith("r\t")) return null;
  const [, state = "", reply = "", failure = ""] = line.split("\t");
  if (failure === "") return { kind: "change", state: state === "" ? null : state, reply };
  const [code, message] = JSON.parse(failure) as [ErrorCode, string];
  return { kind: "failure", code, message };
}

/** What a message came to, if it is known; null: it is recorded, but no longer in memory. */
export type ReplyListener = (result: MessageResult | StarlingError | null) => void;

/** Messages whose results are waited for, and the last results without their states, of one shard. */
export interface Replies {
  readonly waiting: Map<Seq, { readonly listener: ReplyListener; readonly untilMs: number }[]>;
  readonly recent: Map<Seq, MessageResult>;
  waiters: number;
  /** Of the recent ones together. */
  chars: number;
}

/** Nobody waits. */
export function createReplies(): Replies {
  return { waiting: new Map(), recent: new Map(), waiters: 0, chars: 0 };
}
