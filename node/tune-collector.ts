import { availableParallelism } from "node:os";
import { setFlagsFromString } from "node:v8";

/**
 * Lets the collector mark the heap on half of the processors, of which one is the node's own. By default it takes as many
 * threads as V8 has, four, on however few: then they stand in each other's way and in PostgreSQL's, mark for 1.7 s of
 * processor time where one takes 0.5 s, and acknowledgements wait.
 *
 * And lets the old objects grow to four times what was left of them before it marks again. By default that is so at full speed
 * only: the less a node allocates, the less V8 lets the heap grow, down to a tenth. Then some of the nodes with little to do
 * marked a heap of 60 MB every second, for half of their processor time.
 */
export function tuneCollector(processors = availableParallelism()): void {
  setFlagsFromString(`--concurrent-marking-max-worker-num=${Math.max(1, Math.floor(processors / 2))}`);
  setFlagsFromString("--heap-growing-percent=300");
}
