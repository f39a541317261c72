import type { MessageInitShape } from "@bufbuild/protobuf";
import type { ClusterControl } from "../../actors/cluster-control.ts";
import type { Engine, EngineStatus } from "../../actors/engine.ts";
import type { DeadLetterStatus, StoredDeadLetter } from "../../actors/store/store.ts";
import type { Model } from "../../modules/model.ts";
import type { Clock } from "../../proto/clock.ts";
import type { Admin, ModuleStatusSchema } from "../../proto/gen/starling_pb.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import { createControlHandlers } from "./control-handlers.ts";
import type { Handlers } from "./service.ts";

/** A loaded module with its hooks and their counters. */
export type ModuleStatus = MessageInitShape<typeof ModuleStatusSchema>;

export interface AdminOptions {
  readonly engine: Engine;
  readonly model: Model;
  readonly clock: Clock;
  readonly node: string;
  /** The node's name in the cluster; default none. */
  readonly name?: (() => string) | undefined;
  readonly clusterId: string;
  readonly version: string;
  readonly modules: () => readonly ModuleStatus[];
  /** Owners of the entities' shards, with their gRPC addresses. */
  readonly owners: () => readonly { readonly shard: number; readonly epoch: number; readonly address: string }[];
  /** The cluster as a whole; default none. */
  readonly control?: ClusterControl | undefined;
  /** Whether the node is on its way out. */
  readonly leaves: () => boolean;
}

const limitDefault = 100;
const limitMax = 1_000;
const statuses: readonly DeadLetterStatus[] = ["open", "replayed", "discarded"];

/** What a person asks and tells a node. */
export function createAdminHandlers(options: AdminOptions): Handlers<typeof Admin> {
  const { engine, clock } = options;
  const startedMs = clock.now();
  return {
    ...createControlHandlers(options.control ?? null, options.clusterId),
    status: async () => statusOf(options, (clock.now() - startedMs) / 1_000),
    listDeadLetters: async ({ message }) => {
      const limit = message.limit === 0 ? limitDefault : Math.min(message.limit, limitMax);
      const letters = await engine.queries.deadLetters({
        after: message.cursor,
        limit,
        status: parseStatus(message.status),
      });
      return { letters: letters.map(letterOf), cursor: letters.length === limit ? (letters.at(-1)?.id ?? "") : "" };
    },
    getDeadLetter: async ({ message }) => letterOf(found(await engine.queries.deadLetter(message.id), message.id)),
    replayDeadLetter: async ({ message }) => letterOf(await engine.replayDeadLetter(message.id)),
    discardDeadLetter: async ({ message }) => {
      return letterOf(found(await engine.queries.discardDeadLetter(message.id), message.id));
    },
    listModules: async () => ({ modules: [...options.modules()] }),
    owners: async () => ({
      entityShards: engine.entityShards,
      owners: options.owners().map((owner) => ({ ...owner, epoch: BigInt(owner.epoch) })),
    }),
  };
}

function statusOf(options: AdminOptions, uptimeS: number) {
  const { engine, model, node, clusterId, version } = options;
  const { problem, shards } = engine.status();
  const serving = problem === null ? "serving" : "not serving";
  return {
    node,
    name: options.name?.() ?? "",
    clusterId,
    version,
    uptimeS,
    modelHash: model.hash,
    state: options.leaves() ? "leaving" : serving,
    countersJson: JSON.stringify(engine.counters.read()),
    shards: shards.map(shardOnWire),
    problem: problem === null ? "" : `${problem.code}: ${problem.message}`,
  };
}

function shardOnWire(status: EngineStatus["shards"][number]) {
  const { epoch, lastSeq, watermark, undelivered, lagEntries: lag } = status;
  const numbers = { epoch: BigInt(epoch), lastSeq: BigInt(lastSeq), watermark: BigInt(watermark) };
  return {
    shard: status.shard,
    residentEntities: status.residentEntities,
    undelivered: BigInt(undelivered),
    lag,
    ...numbers,
  };
}

function letterOf(letter: StoredDeadLetter) {
  const { task, seq, ...rest } = letter;
  return { ...rest, seq: BigInt(seq), taskJson: task };
}

function found(letter: StoredDeadLetter | null, id: string): StoredDeadLetter {
  if (letter === null) throw new StarlingError("NOT_FOUND", `there is no dead letter ${JSON.stringify(id)}`);
  return letter;
}

function parseStatus(text: string): DeadLetterStatus | null {
  if (text === "") return null;
  const status = statuses.find((one) => one === text);
  if (status === undefined) {
    throw new StarlingError(
      "INVALID_ARGUMENT",
      `a status is one of ${statuses.join(", ")}, not ${JSON.stringify(text)}`,
    );
  }
  return status;
}
