import type { Model } from "../modules/model.ts";
import { toSeq } from "../proto/ids.ts";
import { StarlingError } from "../proto/starling-error.ts";
import { readSegment } from "./log/segment.ts";
import type { RawRow, Segment } from "./store/store.ts";

export interface FollowFilter {
  readonly type: string;
  readonly eid: string | null;
  readonly attr: string | null;
}

/** Rows that a follower may lag behind before it is cut. */
const followerMaxRows = 10_000;

/** Readers of the log's live end. A reader that cannot keep up is cut with BUSY; nobody waits for it. */
export function createFollowers(model: Model) {
  const followers = new Set<Follower>();
  return {
    publish: (segments: readonly Segment[]): void => {
      if (followers.size === 0) return;
      for (const segment of segments) {
        const rows = rowsOf(segment, model);
        for (const follower of followers) follower.push(rows);
      }
    },
    follow: async function* (filter: FollowFilter, signal: AbortSignal): AsyncIterable<RawRow> {
      const follower = createFollower(filter);
      followers.add(follower);
      const wake = (): void => follower.wake();
      signal.addEventListener("abort", wake);
      try {
        while (!signal.aborted) {
          yield* follower.take();
          if (!signal.aborted) await follower.next();
        }
      } finally {
        signal.removeEventListener("abort", wake);
        followers.delete(follower);
      }
    },
  };
}

interface Follower {
  push(rows: readonly RawRow[]): void;
  take(): RawRow[];
  next(): Promise<void>;
  wake(): void;
}

function createFollower(filter: FollowFilter): Follower {
  let rows: RawRow[] = [];
  let status: "keeping-up" | "too-slow" = "keeping-up";
  let wake: () => void = () => {};
  return {
    push: (more) => {
      for (const row of more) {
        const wanted = row.type === filter.type && (filter.eid ?? row.eid) === row.eid;
        if (wanted && (filter.attr ?? row.attr) === row.attr) rows.push(row);
      }
      if (rows.length > followerMaxRows) {
        rows = [];
        status = "too-slow";
      }
      if (rows.length > 0 || status === "too-slow") wake();
    },
    take: () => {
      if (status === "too-slow")
        throw new StarlingError("BUSY", `the reader lags by more than ${followerMaxRows} rows`);
      const taken = rows;
      rows = [];
      return taken;
    },
    next: () => (rows.length > 0 ? Promise.resolve() : new Promise((resolve) => (wake = resolve))),
    wake: () => wake(),
  };
}

function rowsOf(segment: Segment, model: Model): RawRow[] {
  const rows: RawRow[] = [];
  for (const { seq, logged } of readSegment(segment, model).tasks) {
    if (logged.task instanceof StarlingError) continue;
    let at = seq + logged.lines - logged.task.datapoints.length;
    for (const { attr, src, t1, t2, c, json } of logged.task.datapoints) {
      const { type, eid } = logged;
      rows.push({ shard: segment.shard, seq: toSeq(at++), at: segment.at, type, eid, attr, src, t1, t2, c, json });
    }
  }
  return rows;
}
