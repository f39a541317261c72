/**
 * The table of errors: every code, whether trying again can help, the gRPC status it travels as, and what it means.
 * The README's table is checked against this one.
 */
export const errorCodes = {
  INVALID_ARGUMENT: { retry: false, status: 3, means: "a request misses something or holds something impossible" },
  UNKNOWN_TYPE: { retry: false, status: 3, means: "no entity type of that name is in the model" },
  UNKNOWN_ATTRIBUTE: { retry: false, status: 3, means: "the entity type has no attribute of that name" },
  READ_ONLY: { retry: false, status: 3, means: "the attribute is a mirror: it is computed, never sent" },
  INVALID_EID: { retry: false, status: 3, means: "the entity id does not fit the type of ids" },
  INVALID_VALUE: { retry: false, status: 3, means: "the value does not fit the attribute's data type" },
  INVALID_TIME: { retry: false, status: 3, means: "t1 or t2 is missing, not a time, or in the wrong order" },
  INVALID_CONFIDENCE: { retry: false, status: 3, means: "the confidence is not within 0 and 1" },
  TOO_LARGE: { retry: false, status: 3, means: "an id, a value, a batch or a nesting is above its limit" },
  ATOMIC_REFUSED: { retry: false, status: 3, means: "a batch-mate was refused and the batch is atomic" },
  STORE_REFUSED: { retry: false, status: 3, means: "PostgreSQL refused the datapoint itself" },
  BATCH_CHANGED: { retry: false, status: 9, means: "a batch number or a key came back with other content" },
  GAP: { retry: true, status: 9, means: "a batch arrived before the one it follows" },
  SESSION_CLOSED: { retry: false, status: 9, means: "the session is closed, or was not used for too long" },
  SESSION_TAKEN: { retry: false, status: 9, means: "another connection has taken the session over" },
  UNAUTHENTICATED: {
    retry: false,
    status: 16,
    means: "who calls, or who answers, is not known: a certificate or a token",
  },
  PERMISSION_DENIED: { retry: false, status: 7, means: "the token lacks a scope, or the session is another one's" },
  VERSION_MISMATCH: { retry: false, status: 9, means: "client and node, or two nodes, share no protocol version" },
  WRONG_CLUSTER: { retry: false, status: 9, means: "the node belongs to another cluster" },
  NOT_FOUND: { retry: false, status: 5, means: "there is no such entity, dead letter, session, node or shard" },
  INVALID_FILTER: { retry: false, status: 3, means: "a filter or an order of snapshots asks for what there is not" },
  TOO_SLOW: { retry: false, status: 4, means: "PostgreSQL was given up over a question: ask for less at once" },
  BEHIND: { retry: true, status: 14, means: "the owner has not yet processed what the token names" },
  MOVED: { retry: true, status: 14, means: "the shard has another owner" },
  FENCED: { retry: true, status: 14, means: "the shard was taken over: this owner may no longer write" },
  BUSY: { retry: true, status: 8, means: "a bound is reached: send again, later" },
  UNAVAILABLE: { retry: true, status: 14, means: "the node does not serve now" },
  DEADLINE: { retry: true, status: 4, means: "there was no answer within the deadline" },
  CHAIN_TOO_DEEP: { retry: false, status: 9, means: "derived tasks derive tasks beyond the bound on depth" },
  HOOK_FAILED: {
    retry: false,
    status: 13,
    means: "a hook threw, hung or returned nonsense until its tries were used up",
  },
  CONFIG: { retry: false, status: 9, means: "the configuration or the model is wrong" },
  MODULE: { retry: false, status: 9, means: "a module could not be loaded, or registered something wrong" },
  MODEL_CHANGED: { retry: false, status: 9, means: "stored data no longer fit the model" },
  STORE: { retry: true, status: 14, means: "PostgreSQL did not answer or refused for now" },
  STORE_FATAL: { retry: false, status: 13, means: "PostgreSQL is set up in a way that cannot be used" },
  DATA_FOLDER_TAKEN: { retry: false, status: 9, means: "another node uses the data folder or the database" },
  ADDRESS_IN_USE: { retry: false, status: 9, means: "the port is taken by another program" },
  INTERNAL: { retry: false, status: 13, means: "a bug in Starling" },
} as const satisfies Record<string, { retry: boolean; status: number; means: string }>;

export type ErrorCode = keyof typeof errorCodes;

/** The one error of Starling: branch on `code`, never on the text. */
export class StarlingError extends Error {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = "StarlingError";
    this.code = code;
  }

  /** Whether trying the same again can help. */
  get retryable(): boolean {
    return errorCodes[this.code].retry;
  }
}

/** An error of any kind as a StarlingError; what is unknown becomes `fallback`. */
export function toStarlingError(error: unknown, fallback: ErrorCode = "INTERNAL"): StarlingError {
  if (error instanceof StarlingError) return error;
  const message = error instanceof Error ? error.message : String(error);
  return new StarlingError(fallback, message, { cause: error });
}
