import type { Eid } from "../modules/datapoint.ts";
import { readEid } from "../modules/eid.ts";
import type { ShardId } from "../proto/ids.ts";
import { StarlingError } from "../proto/starling-error.ts";
import type { LogPlace, OwnedRecord } from "./engine.ts";
import type { LaneCell } from "./lane/lane-cell.ts";
import { runLetter } from "./lane/run-letter.ts";
import type { LocalEngine } from "./local-engine.ts";
import { createReplyReader } from "./reply-reader.ts";
import type { LocalEngineOptions } from "./start-local-engine.ts";
import type { StoredDeadLetter } from "./store/store.ts";

interface ReadsOptions extends Pick<LocalEngineOptions, "model" | "hooks" | "runHook" | "queries" | "store" | "clock"> {
  readonly shardOf: (type: string, eid: string) => ShardId;
  readonly laneOf: (shard: ShardId) => LaneCell;
}

type Reads = Pick<LocalEngine, "get" | "replayDeadLetter" | "reply">;

/** Reads of what the owner has in memory, and replays of dead letters, which begin with one. */
export function createReads(options: ReadsOptions): Reads {
  const { model, hooks, runHook, queries, store, clock, shardOf, laneOf } = options;
  const get = async (type: string, eid: string, atLeast: LogPlace | null): Promise<OwnedRecord | null> => {
    const spec = model.entities.get(type);
    if (spec === undefined) throw new StarlingError("UNKNOWN_TYPE", `no entity type ${type} in the model`);
    const eidValue: Eid = readEid(spec, eid);
    const shard = shardOf(type, eid);
    return new Promise((resolve, reject) => {
      const reply = (record: OwnedRecord | null | StarlingError): void =>
        record instanceof StarlingError ? reject(record) : resolve(record);
      const message = { kind: "get", key: { shard, type, eid }, eidValue, atLeast, reply } as const;
      if (!laneOf(shard).tell(message)) reply(new StarlingError("UNAVAILABLE", "the node is closing"));
    });
  };
  const replayDeadLetter = async (id: string): Promise<StoredDeadLetter> => {
    const letter = await queries.deadLetter(id);
    if (letter === null) throw new StarlingError("NOT_FOUND", `there is no dead letter ${id}`);
    if (letter.status !== "open") throw new StarlingError("NOT_FOUND", `dead letter ${id} is ${letter.status} already`);
    const cell = laneOf(letter.shard);
    const epoch = cell.lane.shards.get(letter.shard)?.epoch;
    if (epoch === undefined) throw new StarlingError("MOVED", `this node does not own shard ${letter.shard}`);
    // After a take-over the record may not be there yet that the hook was called with.
    const place = { shard: letter.shard, epoch, seq: letter.seq };
    const getRecord = async (type: string, eid: string) => (await get(type, eid, place))?.view ?? null;
    const tasks = await runLetter(letter, { model, hooks, runHook, getRecord });
    return new Promise((resolve, reject) => {
      const reply = (error: StarlingError | null): void =>
        error === null ? resolve({ ...letter, status: "replayed" }) : reject(error);
      const told = cell.tell({ kind: "replay-letter", letter, tasks, reply });
      if (!told) reply(new StarlingError("UNAVAILABLE", "the node is closing"));
    });
  };
  const reply = createReplyReader({ store, clock, tell: (shard, message) => laneOf(shard).tell(message) });
  return { get, replayDeadLetter, reply };
}
