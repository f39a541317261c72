import { callUnary, type Dialled } from "./client-call.ts";
import { type ControlClient, createControlClient } from "./control-client.ts";
import { Admin, type HookStatus, type DeadLetter as WireDeadLetter } from "./gen/starling_pb.ts";

export interface NodeStatus {
  readonly node: string;
  /** Its name in the cluster, the same over restarts; empty before it has joined. */
  readonly name: string;
  readonly clusterId: string;
  readonly modelHash: string;
  readonly version: string;
  /** `serving`, `not serving` or `leaving`. */
  readonly state: string;
  readonly uptimeS: number;
  readonly counters: Readonly<Record<string, number>>;
  readonly shards: readonly ShardState[];
  /** `CODE: text`, empty when the node serves. */
  readonly problem: string;
}

export interface ShardState {
  readonly shard: number;
  readonly epoch: number;
  readonly lastSeq: number;
  readonly watermark: number;
  readonly residentEntities: number;
  readonly undelivered: number;
  /** Log entries that wait for their processing: seqs jump, so that a difference of them is not it. */
  readonly lag: number;
}

export interface DeadLetterEntry {
  readonly id: string;
  readonly kind: string;
  readonly status: string;
  readonly type: string;
  readonly eid: string;
  readonly hook: string;
  readonly code: string;
  readonly error: string;
  /** Unix milliseconds. */
  readonly at: number;
  readonly task: unknown;
  readonly shard: number;
  readonly seq: number;
}

export interface ModuleState {
  readonly name: string;
  readonly file: string;
  readonly hooks: readonly HookState[];
}

export interface HookState {
  readonly kind: string;
  /** The entity type, or `type.attr`; empty: neither. */
  readonly target: string;
  readonly name: string;
  readonly counters: Readonly<Record<string, number>>;
  /** Of a hook of snapshots: paths over links such as `destination.state`. */
  readonly dependsOn: readonly string[];
  readonly mayChange: readonly string[];
  readonly pure: boolean;
  /** Its place in the hook graph's order, from 1; 0: it has none. */
  readonly order: number;
}

/** Typed calls of the service Admin; each raises the StarlingError that the node sends. */
export interface AdminClient extends ControlClient {
  status(): Promise<NodeStatus>;
  deadLetters(query?: { cursor?: string; limit?: number; status?: string }): Promise<DeadLetterPage>;
  deadLetter(id: string): Promise<DeadLetterEntry>;
  replay(id: string): Promise<DeadLetterEntry>;
  discard(id: string): Promise<DeadLetterEntry>;
  modules(): Promise<readonly ModuleState[]>;
}

export interface DeadLetterPage {
  readonly letters: readonly DeadLetterEntry[];
  /** Empty at the end. */
  readonly cursor: string;
}

/** `connected` gives the connection to call on; `deadlineMs` bounds each call. */
export function createAdminClient(connected: () => Promise<Dialled>, deadlineMs: number): AdminClient {
  const { method } = Admin;
  return {
    ...createControlClient(connected, deadlineMs),
    status: async () => {
      const status = await callUnary(await connected(), method.status, {}, deadlineMs);
      const { node, name, clusterId, modelHash, version, state, uptimeS, countersJson, shards, problem } = status;
      const counters = countersJson === "" ? {} : (JSON.parse(countersJson) as Record<string, number>);
      const about = { node, name, clusterId, modelHash, version, state, uptimeS, problem };
      return { ...about, counters, shards: shards.map(toShardState) };
    },
    deadLetters: async (query = {}) => {
      const page = await callUnary(await connected(), method.listDeadLetters, query, deadlineMs);
      return { letters: page.letters.map(toEntry), cursor: page.cursor };
    },
    deadLetter: async (id) => toEntry(await callUnary(await connected(), method.getDeadLetter, { id }, deadlineMs)),
    replay: async (id) => toEntry(await callUnary(await connected(), method.replayDeadLetter, { id }, deadlineMs)),
    discard: async (id) => toEntry(await callUnary(await connected(), method.discardDeadLetter, { id }, deadlineMs)),
    modules: async () => {
      const { modules } = await callUnary(await connected(), method.listModules, {}, deadlineMs);
      return modules.map(({ name, file, hooks }) => ({ name, file, hooks: hooks.map(toHookState) }));
    },
  };
}

function toHookState({ $typeName: _, ...hook }: HookStatus): HookState {
  return hook;
}

function toShardState(wire: {
  readonly shard: number;
  readonly epoch: bigint;
  readonly lastSeq: bigint;
  readonly watermark: bigint;
  readonly residentEntities: number;
  readonly undelivered: bigint;
  readonly lag: number;
}): ShardState {
  const { shard, residentEntities, lag } = wire;
  const places = { epoch: Number(wire.epoch), lastSeq: Number(wire.lastSeq), watermark: Number(wire.watermark) };
  return { shard, ...places, residentEntities, lag, undelivered: Number(wire.undelivered) };
}

function toEntry(letter: WireDeadLetter): DeadLetterEntry {
  const { id, kind, status, type, eid, hook, code, error, at, shard } = letter;
  const task = letter.taskJson === "" ? null : (JSON.parse(letter.taskJson) as unknown);
  return { id, kind, status, type, eid, hook, code, error, at, task, shard, seq: Number(letter.seq) };
}
