import { type ErrorCode, type StarlingError, toStarlingError } from "../../proto/starling-error.ts";
import type { CommandContext } from "./command-context.ts";

/** What a person can do about an error, where one sentence can say it. */
const remedies: Partial<Record<ErrorCode, string>> = {
  UNAVAILABLE:
    "is a node running there? `npm start` starts one; --address may name several nodes, with commas; --tls-ca talks TLS",
  UNAUTHENTICATED: "`starling token new` makes a token; --tls-cert and --tls-key show a certificate",
  DEADLINE: "the node may be overloaded or stuck: look at `starling status` and its log",
  BUSY: "wait a moment, then run the same command again",
  BEHIND: "wait a moment, then run the same command again",
  MOVED: "run the same command again",
  UNKNOWN_TYPE: "`starling entity count` lists the entity types",
  INVALID_FILTER: "the README's `Snapshots` lists what filters know; `starling snapshot list --help` has examples",
  TOO_SLOW:
    "narrow the filter by an equality or a prefix, which indexes answer; regular expressions look at every snapshot",
  BATCH_CHANGED: "the input or --batch changed since the session's first run: use another --session name",
  SESSION_CLOSED: "use another --session name",
  SESSION_TAKEN: "another process sends under this session's name: end it, or use another name",
  VERSION_MISMATCH: "use a command line and a node of the same version",
  CONFIG: "`starling check DIR` shows everything that is wrong",
  MODULE: "`starling check DIR` shows everything that is wrong",
  MODEL_CHANGED:
    "undo the change in db_entities, or give the attribute another name; a type without entities may change as it likes",
  STORE: "is PostgreSQL running and reachable? check the database URL",
  DATA_FOLDER_TAKEN: "end the other node, or give this one another --data-dir",
  ADDRESS_IN_USE: "give the node another --listen address, or end the program that uses this one",
  INTERNAL: "this is a bug: run again with STARLING_DEBUG=1 and report what it prints",
};

/** `starling: CODE: message`, and a second line with what to do. */
export function describeError(error: StarlingError, prefix = ""): string {
  const remedy = remedies[error.code];
  const line = `starling: ${error.code}: ${prefix}${error.message}`;
  return remedy === undefined ? line : `${line}\n  → ${remedy}`;
}

/** Tells a person of an error that ended the command; its stack only with `STARLING_DEBUG`. */
export function reportError(error: unknown, { output, env }: Pick<CommandContext, "output" | "env">): void {
  const known = toStarlingError(error);
  output.note(describeError(known));
  if ((env.STARLING_DEBUG ?? "") === "") return;
  for (let cause: unknown = error; cause !== undefined; cause = cause instanceof Error ? cause.cause : undefined) {
    output.note(cause instanceof Error ? (cause.stack ?? cause.message) : String(cause));
  }
}
