import { availableParallelism } from "node:os";
import { setFlagsFromString } from "node:v8";

/**
 * Lets the collector mark the heap on half of the processors, of which one is the node's own. By default it takes as many
 * threads as V8 has, four, on however few: then they stand in each other's way and in PostgreSQL's, mark for 1.7 s of
 * processor time where one takes 0.5 s, and acknowledgements wait.
 */
export function limitCollector(processors = availableParallelism()): void {
  const flag = `--concurrent-marking-max-worker-num=${Math.max(1, Math.floor(processors / 2))}`;
  setFlagsFromString(flag);
}
