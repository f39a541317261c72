import type { Fence } from "../store/store.ts";
import type { Lane } from "./lane.ts";

/** The shards of some lanes: one list for as long as they are the same, so that who looks often can see at once whether they are. */
export function createHeld(lanes: readonly { readonly lane: Lane }[]): () => readonly Fence[] {
  let held: readonly Fence[] = [];
  const isSame = (): boolean => {
    let count = 0;
    for (const { lane } of lanes)
      for (const { fence } of lane.shards.values()) if (held[count++] !== fence) return false;
    return count === held.length;
  };
  return () => {
    if (!isSame()) held = lanes.flatMap(({ lane }) => [...lane.shards.values()].map(({ fence }) => fence));
    return held;
  };
}
