import { isMainThread } from "node:worker_threads";

/** Loaded into a node with `node --import`: at SIGUSR2 its calendar jumps an hour ahead, at the next one two hours back. */
const now = Date.now;
const hourMs = 3_600_000;
let shiftMs = 0;

if (isMainThread) {
  process.on("SIGUSR2", () => {
    shiftMs = shiftMs > 0 ? -hourMs : hourMs;
  });
}
Date.now = () => now() + shiftMs;
