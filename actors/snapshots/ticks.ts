import type { ShardId } from "../../proto/ids.ts";
import type { LaneMessage } from "../lane/lane.ts";
import type { LaneCell } from "../lane/lane-cell.ts";
import { isEnding, type OpenCut, openCutOf, type TickPass } from "./tick-mark.ts";

/** The cuts of ticks in the shards of this node: see `tick-mark.ts`. */
export interface LocalTicks {
  /** A tick runs, so somebody says: shards that are here, or come later, mark their place. Idempotent; 0 says nothing. */
  learn(tick: number): void;
  /** Runs up to this tick have ended: cuts of theirs close. */
  end(tick: number): void;
  /** The newest one that was heard of here; 0: none. */
  readonly newest: number;
  /**
   * Called when entities of a shard can be read as they were at its mark: it and all before it are written. Of a shard that
   * came when that was so already, called when it comes. Returns the unsubscribe.
   */
  onOpen(listener: (cut: OpenCut) => void): () => void;
  /** The cuts of now. */
  open(): OpenCut[];
  /** Tells up to where a visit is durable: what changes there keeps no image any more. With null it ends. */
  pass(pass: TickPass): void;
}

/** The same on a node among others. */
export interface Ticks extends Omit<LocalTicks, "learn" | "end" | "newest"> {
  /**
   * A tick runs: marks the shards here, and tells the other nodes if that is new; who does not hear of it reads it within a
   * second.
   */
  announce(tick: number): void;
}

interface TicksWorld {
  readonly lanes: readonly LaneCell[];
  readonly laneOf: (shard: ShardId) => LaneCell;
  /** Tells a lane, sooner or later. */
  readonly tell: (lane: LaneCell, message: LaneMessage) => void;
}

/** Those of a node's lanes; `publish` is told of cuts that open. */
export function createTicks({ lanes, laneOf, tell }: TicksWorld): LocalTicks & { publish(cut: OpenCut): void } {
  const listeners = new Set<(cut: OpenCut) => void>();
  let newest = 0;
  return {
    learn: (tick) => {
      if (tick < newest || tick === 0) return;
      newest = tick;
      for (const cell of lanes) if (cell.lane.tick < tick) tell(cell, { kind: "learn-tick", tick });
    },
    end: (tick) => {
      for (const cell of lanes) {
        if ([...cell.lane.shards.values()].some((shard) => isEnding(shard, tick)))
          tell(cell, { kind: "end-ticks", tick });
      }
    },
    get newest() {
      return newest;
    },
    onOpen: (listener) => {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    open: () => lanes.flatMap(({ lane }) => [...lane.shards.values()].flatMap((shard) => openCutOf(shard) ?? [])),
    pass: (pass) => tell(laneOf(pass.shard), { kind: "pass-tick", pass }),
    publish: (cut) => {
      for (const listener of listeners) listener(cut);
    },
  };
}
