import { runSim, type SimResult } from "./run.ts";
import { outside } from "./scheduler.ts";

/** What a worker answers to a seed. */
export type SimReport = Omit<SimResult, "trace">;

/** A process that plays the runs whose seeds it is sent, one after another. */
process.on("message", (seed: number) => {
  outside(() => runSim(seed)).then(
    ({ trace: _, ...report }) => process.send?.(report),
    (error: unknown) => {
      process.stderr.write(`seed ${seed}: ${String(error)}\n`);
      process.exit(1);
    },
  );
});

// Errors are answers here, and many: their stacks would take a tenth of the time.
Error.stackTraceLimit = 0;
