/**
 * Flags of a node's process, which V8 reads before any of our code runs. Young objects get the room of two spaces of 64 MiB: what
 * is in flight and what waits for its flush dies there instead of being copied to the old ones. They keep 4 MiB when nothing
 * happens: with the default of 1 MiB an idle node collects every other second, on all its threads.
 */
export const heapFlags: readonly string[] = ["--max-semi-space-size=64", "--min-semi-space-size=4"];
