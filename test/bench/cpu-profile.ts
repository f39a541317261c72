import { rename, writeFile } from "node:fs/promises";
import { Session } from "node:inspector/promises";
import { isMainThread } from "node:worker_threads";

/**
 * Loaded into a node with `node --import`: at a first SIGUSR2 a CPU profile of the main thread begins, at a second
 * one it ends and is written to the file BENCH_PROFILE, which is there when it is whole.
 */
const file = process.env.BENCH_PROFILE;
const intervalUs = 500;

if (isMainThread && file !== undefined) {
  const session = new Session();
  process.once("SIGUSR2", () => {
    process.once("SIGUSR2", () => void stop(session, file));
    void start(session);
  });
}

/** A failure ends the node: without a profile the run is of no use. */
async function start(session: Session): Promise<void> {
  session.connect();
  await session.post("Profiler.enable");
  await session.post("Profiler.setSamplingInterval", { interval: intervalUs });
  await session.post("Profiler.start");
}

async function stop(session: Session, path: string): Promise<void> {
  const { profile } = await session.post("Profiler.stop");
  session.disconnect();
  await writeFile(`${path}.part`, JSON.stringify(profile));
  await rename(`${path}.part`, path);
}
