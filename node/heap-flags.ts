/**
 * Flags of a node's process, which V8 reads before any of our code runs; set later they say nothing to a heap that is there.
 *
 * Young objects get the room of two spaces of 64 MiB: what is in flight and what waits for its flush dies there instead of being
 * copied to the old ones. They keep 4 MiB when nothing happens: with the default of 1 MiB an idle node collects every other second,
 * on all its threads.
 *
 * One thread beside the node's own marks the old ones. By default four do, on however few processors: then they stand in each
 * other's way, in that of the node and of PostgreSQL, for 0.8 to 1.1 s of their time each time where one takes 0.2 to 0.3 s, and
 * acknowledgements wait. More nodes, not more threads, are what takes more processors.
 */
export const heapFlags: readonly string[] = [
  "--max-semi-space-size=64",
  "--min-semi-space-size=4",
  "--concurrent-marking-max-worker-num=1",
];
