import type {
  NewSnapshotRequest,
  ShardWriter,
  SnapshotRun,
  SnapshotStore,
  SnapshotTicks,
} from "../../actors/store/snapshot-store.ts";
import type { MemoryStore } from "./memory-store.ts";

/** What a coordinator needs of runs: their rows, and what it is asked for. */
export type RunStore = Pick<
  SnapshotStore,
  "readTicks" | "readRuns" | "beginRun" | "noteRun" | "endRun" | "addRequest" | "readRequests" | "readRequest"
>;

export interface MemoryRuns extends RunStore {
  /** All of them, oldest first. */
  readonly runs: readonly SnapshotRun[];
}

/** Runs in memory, every change of which is fenced by the shard of the coordinator, as in PostgreSQL. `wall`: Unix ms. */
export function createMemoryRuns(store: MemoryStore, wall: () => number): MemoryRuns {
  const runs: SnapshotRun[] = [];
  const requests = new Map<string, { readonly request: NewSnapshotRequest; tick: number | null }>();
  const running = (): SnapshotRun | undefined => runs.find(({ status }) => status === "running");
  const newest = (list: readonly SnapshotRun[]): SnapshotRun | null => list.at(-1) ?? null;
  const finished = (): SnapshotRun | null => newest(runs.filter(({ status }) => status === "finished"));
  const publish = (): void => {
    store.durable.tick = running()?.tick ?? 0;
    store.durable.endedTick = newest(runs.filter(({ status }) => status !== "running"))?.tick ?? 0;
  };
  /** An ended run stays as it is: what comes late changes nothing. */
  const note = (owner: ShardWriter, tick: number, change: Partial<SnapshotRun>) =>
    store.command(owner.node, owner, () => {
      const at = runs.findIndex((run) => run.tick === tick && run.status === "running");
      const run = runs[at];
      if (run !== undefined) runs[at] = { ...run, ...change };
      publish();
    });
  const isOpen = ({
    request,
    tick,
  }: {
    readonly request: NewSnapshotRequest;
    readonly tick: number | null;
  }): boolean => (request.kind === "run" ? tick === null : running()?.tick === request.tick);

  return {
    runs,
    readTicks: async (): Promise<SnapshotTicks> => ({
      running: running() ?? null,
      finished: finished(),
      newest: newest(runs),
    }),
    readRuns: async ({ before, limit }) =>
      runs
        .filter(({ tick }) => before === null || tick < before)
        .reverse()
        .slice(0, limit),
    beginRun: async (owner, { requests: ids, ...run }) => {
      let begun = { tick: 0, begun: false };
      const outcome = await store.command(owner.node, owner, () => {
        const known = running();
        begun = { tick: known?.tick ?? (newest(runs)?.tick ?? 0) + 1, begun: known === undefined };
        if (known !== undefined) return;
        const base = finished()?.tick ?? 0;
        const ended = { endedAt: null, counts: {}, hooks: {}, error: null };
        runs.push({ ...run, tick: begun.tick, status: "running", phase: "visit", base, startedAt: wall(), ...ended });
        for (const id of ids) {
          const asked = requests.get(id);
          if (asked !== undefined) asked.tick = begun.tick;
        }
        publish();
      });
      return outcome === "lost" ? "lost" : begun;
    },
    noteRun: (owner, tick, progress) => note(owner, tick, progress),
    endRun: (owner, tick, end) => note(owner, tick, { ...end, phase: "ended", endedAt: wall() }),
    addRequest: async (request) => {
      if (!requests.has(request.id)) requests.set(request.id, { request, tick: null });
    },
    readRequests: async () => [...requests.values()].filter(isOpen).map(({ request }) => request),
    readRequest: async (id) => requests.get(id)?.tick ?? null,
  };
}
