import { createPlan, type SendPlan } from "./plan.ts";

/**
 * What one datapoint costs, stage by stage. The boundaries:
 *
 *   decode       bytes of a batch's message to values, and the hash of its content
 *   validate     `checkDatapoint`, with the JSON text of a value parsed
 *   route        the rest of `splitBatch`: tasks, shards, parts; the session's and the stream's books
 *   append       admission, segments, and the text of the store's call
 *   process      from a durable segment on: entity look-up, hooks, record changes; alone also what is told of it
 *   flush        dirty entities, records and histories as text, the text of the store's call, watermarks
 *   acknowledge  what is told of parts, the session's and the stream's books, the messages that say so
 *
 * Beside them stands what a node pays for its surroundings, and PostgreSQL. There are two views. `alone` drives
 * each stage's real functions one after another in a process without anything else (stages-alone.ts). `node` is a
 * real node under the load of `ingest`: samples of its main thread, shared out by call tree (profile-stages.ts),
 * times the processor time of a run without profiler (stages-node.ts). In both, garbage collection is a line of its
 * own: in the node the main thread's, since what the collector and the compiler do on other threads is a line, too;
 * alone that of all threads, and the compiler and the collector's work beside a stage count as the stage's.
 */
export const stages = ["decode", "validate", "route", "append", "process", "flush", "acknowledge"] as const;

/** The name of a stage. */
export type Stage = (typeof stages)[number];

/** What a node pays beside the stages. */
export const surroundings = {
  client: "PostgreSQL client",
  grpc: "gRPC and HTTP/2",
  gc: "garbage collection",
  native: "native code outside JavaScript",
  threads: "other threads of the node",
  other: "other",
} as const;

/** The key of a surrounding. */
export type Surrounding = keyof typeof surroundings;

/** What the alone view finds; per datapoint where nothing else is said. */
export interface AloneReport {
  /** µs, by stage, and of the client and the collector. */
  readonly us: Readonly<Record<Stage | "client" | "gc", number>>;
  /** The same, by the parts that stages are measured in. */
  readonly parts: Readonly<Record<string, number>>;
  /** Bytes allocated in the JavaScript heap. */
  readonly heap: Readonly<Record<Stage, number>>;
  /** µs of PostgreSQL's processes. */
  readonly postgresUs: Readonly<Record<"append" | "flush" | "other", number>>;
  readonly bytes: Readonly<Record<"wire" | "log" | "state" | "history", number>>;
  /** Rows. */
  readonly rows: Readonly<Record<"log" | "state" | "history", number>>;
}

/** What the child process of the alone view is told. */
export interface AlonePlan {
  readonly entities: number;
  readonly url: string;
  readonly postgresPid: number;
  /** Batches that are appended together. */
  readonly batches: number;
  /** So many entities stay dirty, as changes of one entity gather in a node under load. */
  readonly dirtyMin: number;
}

/** What stands in the database, and in the node's memory, before the measured datapoints come: o_level and o_state. */
export function preloadPlan(entities: number): SendPlan {
  return createPlan(entities, { attributes: [4, 5], generation: 0, seed: 2 });
}
