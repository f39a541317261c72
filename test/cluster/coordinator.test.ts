import { setTimeout as delay } from "node:timers/promises";
import type { Coordinator } from "../../cluster/coordinator.ts";
import { openEtcd } from "../../cluster/etcd/etcd.ts";
import { createMemoryCoordinator } from "../../cluster/memory-coordinator.ts";
import { systemClock } from "../../proto/clock.ts";
import { startTestEtcd } from "../support/etcd-server.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { type CoordinatorBed, coordinatorContract } from "./coordinator-contract.ts";

const timeoutMs = 1_000;

coordinatorContract("etcd", async (): Promise<CoordinatorBed> => {
  const etcd = await startTestEtcd();
  const opened: Coordinator[] = [];
  return {
    clock: systemClock,
    timeoutMs,
    hintsAtStart: 1,
    open: () => {
      const coordinator = openEtcd({ endpoints: [etcd.endpoint], clock: systemClock, timeoutMs });
      opened.push(coordinator);
      return coordinator;
    },
    until: async (condition) => {
      const deadline = performance.now() + 15_000;
      while (!(await condition())) {
        if (performance.now() > deadline) throw new Error("the condition did not come to hold within 15 s");
        await delay(20);
      }
    },
    silence: () => etcd.freeze(),
    speak: () => etcd.thaw(),
    close: async () => {
      await Promise.all(opened.map((coordinator) => coordinator.close()));
      await etcd.close();
    },
  };
});

coordinatorContract("memory", async (): Promise<CoordinatorBed> => {
  const clock = createManualClock();
  const memory = createMemoryCoordinator({ clock, timeoutMs });
  let silent = false;
  return {
    clock,
    timeoutMs,
    hintsAtStart: 0,
    open: () =>
      memory.client(() =>
        silent ? { kind: "slow", beforeMs: Number.POSITIVE_INFINITY, afterMs: 0 } : { kind: "none" },
      ),
    until: async (condition) => {
      const deadline = clock.now() + 15_000;
      while (!(await condition())) {
        if (clock.now() > deadline) throw new Error("the condition did not come to hold within 15 s");
        await clock.advance(20);
      }
    },
    silence: async () => {
      silent = true;
    },
    speak: () => {
      silent = false;
    },
    close: () => memory.close(),
  };
});
