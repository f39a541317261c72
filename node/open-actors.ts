import type { Counters } from "../actors/counters.ts";
import { createModuleActors, type Messenger } from "../actors/messenger.ts";
import { startScheduleDriver } from "../actors/schedules/schedule-driver.ts";
import type { ClusterEngine } from "../actors/start-engine.ts";
import { systemClock } from "../proto/clock.ts";
import type { Log } from "./log.ts";
import type { Modules } from "./module-loader.ts";

/** Lets modules reach actors, and runs their schedules. Returns the end of the latter. */
export function openActors(
  modules: Modules,
  parts: { messenger: Messenger; engine: ClusterEngine; counters: Counters; log: Log },
): () => Promise<void> {
  const { messenger, engine, counters, log } = parts;
  modules.actors.open(createModuleActors(messenger));
  const driver = startScheduleDriver({
    ...{ scheduled: modules.scheduled, engine, messenger, owns: engine.ownsNow, counters },
    ...{ clock: systemClock, wall: Date.now, log: (module) => log.child({ module }) },
  });
  return () => driver.close();
}
