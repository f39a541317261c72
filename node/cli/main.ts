#!/usr/bin/env -S node --max-semi-space-size=64 --min-semi-space-size=4 --concurrent-marking-max-worker-num=1
import { tuneCollector } from "../tune-collector.ts";
import { endAnyway } from "./end-anyway.ts";
import { createOutput } from "./output.ts";
import { runCommandLine } from "./program.ts";

/**
 * npm passes Ctrl-C on to its child, which the terminal has told already: the same signal within this time is one.
 */
const sameSignalMs = 500;

tuneCollector();

const stop = new AbortController();
let stoppedAt = Number.POSITIVE_INFINITY;
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.on(signal, () => {
    const now = performance.now();
    if (now - stoppedAt > sameSignalMs) process.exit(1);
    stoppedAt = Math.min(stoppedAt, now);
    stop.abort();
  });
}

/** Whoever closes a terminal wants what runs in it to end. */
function onReload(listener: () => void): () => void {
  if (process.stderr.isTTY) return () => {};
  process.on("SIGHUP", listener);
  return () => process.off("SIGHUP", listener);
}

process.exitCode = await runCommandLine(process.argv.slice(2), {
  output: createOutput(process.stdout, process.stderr, process.env, () => stop.abort()),
  env: process.env,
  stdin: process.stdin,
  signal: stop.signal,
  onReload,
});
endAnyway((left) => process.stderr.write(`starling: ended although something was left open: ${left.join(", ")}\n`));
