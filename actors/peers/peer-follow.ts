import type { OwnerTable } from "../../cluster/owner-table.ts";
import type { NodeId, ShardId } from "../../proto/ids.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import type { FollowFilter } from "../follow.ts";
import type { LocalEngine } from "../local-engine.ts";
import type { RawRow } from "../store/store.ts";
import type { Answer, PeerConnection } from "./peer-connection.ts";
import { readProblem } from "./peer-problem.ts";
import { readRow } from "./peer-record.ts";

/** Where the rows of some shards come from. */
export interface RowSource {
  readonly node: NodeId;
  /** Null: from this node. */
  readonly connection: PeerConnection | null;
  readonly shards: readonly ShardId[];
}

export interface FollowWorld {
  readonly local: LocalEngine;
  readonly owners: OwnerTable;
}

/**
 * Rows of several nodes as one sequence, in log order per shard, until the signal is aborted. No row goes missing
 * unsaid: when a shard's owner changes or a link breaks, the rows so far are followed by UNAVAILABLE, and a reader too
 * slow is cut with BUSY.
 */
export async function* followSources(
  { local, owners }: FollowWorld,
  sources: readonly RowSource[],
  filter: FollowFilter,
  signal: AbortSignal,
): AsyncGenerator<RawRow> {
  const queue = createRowQueue();
  const stop = new AbortController();
  const owned = new Map(sources.flatMap(({ node, shards }) => shards.map((shard) => [shard, node] as const)));
  const unwatch = watchOwners(local, owners, owned, () => queue.fail(moved()));
  const asked: { readonly connection: PeerConnection; readonly id: number }[] = [];
  const wake = (): void => queue.wake();
  signal.addEventListener("abort", wake);
  try {
    for (const { connection, shards } of sources) {
      if (connection === null) void pump(local.follow(filter, stop.signal), queue);
      else asked.push({ connection, id: askRows(connection, shards, filter, queue) });
    }
    while (!signal.aborted) {
      yield* queue.take();
      if (!signal.aborted) await queue.next();
    }
  } finally {
    signal.removeEventListener("abort", wake);
    unwatch();
    stop.abort();
    for (const { connection, id } of asked) connection.forget(id, "tell");
  }
}

/**
 * Calls `onMoved` when a shard gets another owner than the given one, or another epoch: in between rows may have been
 * written elsewhere. Returns the unsubscribe.
 */
export function watchOwners(
  local: Pick<LocalEngine, "onLost">,
  owners: OwnerTable,
  owned: ReadonlyMap<ShardId, NodeId>,
  onMoved: () => void,
): () => void {
  const epochs = new Map([...owned.keys()].map((shard) => [shard, owners.get(shard)?.epoch]));
  const unwatch = owners.onChange((changed) => {
    for (const { shard, epoch, owner } of changed) {
      const node = owned.get(shard);
      if (node === undefined) continue;
      const known = epochs.get(shard);
      epochs.set(shard, epoch);
      if (owner !== node || (known !== undefined && known !== epoch)) return onMoved();
    }
  });
  const unlost = local.onLost((lost) => {
    if (lost.some((shard) => owned.has(shard))) onMoved();
  });
  return () => {
    unwatch();
    unlost();
  };
}

interface RowQueue {
  push(rows: readonly RawRow[]): void;
  fail(error: StarlingError): void;
  take(): RawRow[];
  next(): Promise<void>;
  wake(): void;
}

/** Rows, and roughly their bytes, that a reader may lag behind before it is cut. */
const queueMaxRows = 10_000;
const queueMaxBytes = 64 * 1024 * 1024;
const rowBytes = 200;

function createRowQueue(): RowQueue {
  let rows: RawRow[] = [];
  let bytes = 0;
  let problem: StarlingError | null = null;
  let wake: () => void = () => {};
  const fail = (error: StarlingError): void => {
    problem ??= error;
    wake();
  };
  return {
    fail,
    push: (more) => {
      if (problem !== null) return;
      for (const row of more) {
        rows.push(row);
        bytes += rowBytes + row.json.length;
      }
      if (rows.length > queueMaxRows || bytes > queueMaxBytes) {
        fail(new StarlingError("BUSY", `the reader lags by ${rows.length} rows, ${bytes} bytes`));
        rows = [];
      }
      wake();
    },
    take: () => {
      if (rows.length === 0 && problem !== null) throw problem;
      const taken = rows;
      rows = [];
      bytes = 0;
      return taken;
    },
    next: () => (rows.length > 0 || problem !== null ? Promise.resolve() : new Promise((resolve) => (wake = resolve))),
    wake: () => wake(),
  };
}

async function pump(rows: AsyncIterable<RawRow>, queue: RowQueue): Promise<void> {
  try {
    for await (const row of rows) queue.push([row]);
  } catch (error) {
    queue.fail(error instanceof StarlingError ? error : new StarlingError("INTERNAL", String(error), { cause: error }));
  }
}

function askRows(connection: PeerConnection, shards: readonly ShardId[], filter: FollowFilter, queue: RowQueue) {
  const { type, eid, attr } = filter;
  const value = { type, eid: eid ?? undefined, attr: attr ?? undefined, shards: [...shards] };
  return connection.ask({ case: "follow", value }, (answer: Answer | StarlingError) => {
    if (answer instanceof StarlingError) return queue.fail(answer);
    const { kind } = answer;
    if (kind.case === "rows") return queue.push(kind.value.rows.map(readRow));
    const problem = kind.case === "problem" ? readProblem(kind.value) : moved();
    queue.fail(problem.code === "MOVED" ? moved() : problem);
  });
}

function moved(): StarlingError {
  return new StarlingError("UNAVAILABLE", "a followed shard moved to another node: start again");
}
