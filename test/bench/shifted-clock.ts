/** Loaded into a node with `node --import`: its calendar runs ahead by BENCH_SHIFT_MS, so that midnight comes soon. */
const shiftMs = Number(process.env.BENCH_SHIFT_MS ?? 0);
const now = Date.now;
Date.now = () => now() + shiftMs;

export {};
