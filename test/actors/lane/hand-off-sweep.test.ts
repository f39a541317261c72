import { expect, test } from "vitest";
import type { Effect } from "../../../actors/lane/lane.ts";
import { all, failing, play, startWorld } from "./hand-off-world.ts";

const slows: readonly (Effect["kind"] | null)[] = [null, "append", "flush", "deliver"];
const sets = [...all.map((id) => [id]), all];

test.each(slows)(
  "shards that move after any effect, and back, lose and double nothing (slow: %s)",
  async (slow) => {
    const calm = await startWorld({ runHook: failing, slow, onEffect: () => void count++ });
    let count = 0;
    const expected = await play(calm);
    expect(expected).toContain("letters 3");
    expect(count).toBeGreaterThan(100);
    let moved = 0;
    const seen: Record<string, number> = {};
    for (const set of sets) {
      for (let at = 1; at <= count; at += 1) {
        const back = 3 + (at % 11) * 5;
        const world = await startWorld({
          ...{ runHook: failing, slow },
          onEffect: (here, now) => {
            if (now === at) void here.move(set, 0);
            if (now === at + back) void here.move(set, 1);
          },
        });
        expect(await play(world), `${set} moved after effect ${at}, and back after ${back} more`).toBe(expected);
        moved += world.acquired.length;
        for (const { lane } of world.nodes) {
          for (const [name, value] of Object.entries(lane.world.counters.read()))
            seen[name] = (seen[name] ?? 0) + value;
        }
      }
    }
    expect(moved).toBeGreaterThan(sets.length * count);
    expect(seen.shards_given_up).toBe(moved);
    // Nothing of a shard is written after its last flush (G1): no fence had to refuse it.
    expect(seen.fenced_commits).toBe(undefined);
    // What the moves are to hit: repeats of durable parts, hooks that ran, entries that the next owner replays.
    for (const name of ["repeats", "hooks_given_up", "replayed_tasks", "refused/MOVED"]) {
      expect(seen[name], name).toBeGreaterThan(20);
    }
  },
  300_000,
);
