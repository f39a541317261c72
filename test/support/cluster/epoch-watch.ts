import { connectAll } from "../databases.ts";

/** Reads the tables of epochs again and again: a committed epoch never steps back. */
export interface EpochWatch {
  /** How often a shard changed hands. */
  readonly changes: number;
  /** What is wrong. */
  readonly problems: readonly string[];
  close(): Promise<void>;
}

interface ShardRow {
  readonly shard: number;
  readonly epoch: number;
}

const everyMs = 200;

/** Starts watching. Readings that fail, as when PostgreSQL is away, are left out. */
export function watchEpochs(urls: readonly string[]): EpochWatch {
  const limits = { statementTimeoutMs: 5_000, connectTimeoutMs: 2_000 };
  const connections = connectAll(urls, { application: "epoch-watch", ...limits });
  const epochs = new Map<number, number>();
  const state = { changes: 0, problems: [] as string[], closed: false };
  let wake: () => void = () => {};
  const read = async (): Promise<void> => {
    const rows = await connections.query<ShardRow>("select shard, epoch::float8 as epoch from starling.shard");
    for (const { shard, epoch } of rows) {
      const before = epochs.get(shard) ?? epoch;
      if (epoch < before) state.problems.push(`the epoch of shard ${shard} stepped back from ${before} to ${epoch}`);
      if (epoch > before) state.changes += 1;
      epochs.set(shard, epoch);
    }
  };
  const running = (async () => {
    while (!state.closed) {
      await read().catch(() => {});
      await new Promise<void>((resolve) => {
        wake = resolve;
        setTimeout(resolve, everyMs);
      });
    }
  })();
  return {
    get changes() {
      return state.changes;
    },
    problems: state.problems,
    close: async () => {
      state.closed = true;
      wake();
      await running;
      await connections.close();
    },
  };
}
