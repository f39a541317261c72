import type { Coordinator } from "../../../cluster/coordinator.ts";
import { joinMembership } from "../../../cluster/membership/join-membership.ts";
import type { Membership, MembershipView } from "../../../cluster/membership/membership.ts";
import {
  type CoordinatorCall,
  type CoordinatorFault,
  createMemoryCoordinator,
  type MemoryCoordinator,
} from "../../../cluster/memory-coordinator.ts";
import type { Clock } from "../../../proto/clock.ts";
import { toNodeId } from "../../../proto/ids.ts";
import { createManualClock, type ManualClock } from "../../support/manual-clock.ts";

export const prefix = "/starling/test/";
/** A time to live of a lease; a node is listed at the latest after half of it. */
export const ttlMs = 4000;

/** Several nodes over one coordinator in memory, under one clock. */
export interface MembershipCluster {
  readonly clock: ManualClock;
  readonly coordinator: MemoryCoordinator;
  /** Messages of all nodes' logs. */
  readonly logged: string[];
  /** Lets a node join, and time pass until it has. */
  start(name: string): Promise<TestNode>;
  /** The promise of the joining; time has to be let pass. */
  join(name: string, faults?: FaultSwitch, signal?: AbortSignal): Promise<Membership>;
  /** What nodes that join from now on speak; default 1. */
  speak(protocol: number): void;
  close(): Promise<void>;
}

export interface FaultSwitch {
  /** What befalls each call of a node; replaced at will. */
  fault: (call: CoordinatorCall) => CoordinatorFault;
}

export interface TestNode {
  readonly membership: Membership;
  readonly faults: FaultSwitch;
  readonly views: MembershipView[];
  readonly names: () => string[];
  /** Every call waits for its deadline, hints are lost. */
  cut(): void;
  heal(): void;
  /** Nothing of it runs any more. */
  freeze(): void;
  thaw(): void;
}

export const none: CoordinatorFault = { kind: "none" };
export const hanging: CoordinatorFault = { kind: "slow", beforeMs: Number.POSITIVE_INFINITY, afterMs: 0 };

export function createMembershipCluster(): MembershipCluster {
  const clock = createManualClock();
  const coordinator = createMemoryCoordinator({ clock });
  const logged: string[] = [];
  const open: Membership[] = [];
  const ids = new Map<string, number>();
  let protocol = 1;
  const enter = async (name: string, faults: FaultSwitch, own: Clock, signal?: AbortSignal) => {
    const log = (_fields: object, message: string): void => void logged.push(`${name}: ${message}`);
    const newId = () => {
      const count = (ids.get(name) ?? 0) + 1;
      ids.set(name, count);
      return toNodeId(`${name}-${count}`);
    };
    const client: Coordinator = coordinator.client((call) => faults.fault(call));
    const membership = await joinMembership({
      coordinator: client,
      clock: own,
      random: () => 0.5,
      newId,
      prefix,
      record: {
        name,
        address: `${name}:7800`,
        version: "1",
        protocolMin: protocol,
        protocolMax: protocol,
        modelHash: "m",
      },
      log: { info: log, warn: log, error: log },
      ...(signal && { signal }),
    });
    open.push(membership);
    return membership;
  };
  return {
    clock,
    coordinator,
    logged,
    join: (name, faults = { fault: () => none }, signal) => enter(name, faults, clock, signal),
    speak: (spoken) => {
      protocol = spoken;
    },
    start: async (name) => {
      const faults: FaultSwitch = { fault: () => none };
      const own = createFreezer(clock);
      const joining = enter(name, faults, own);
      await clock.advance(10);
      return createTestNode(await joining, faults, own);
    },
    close: async () => {
      const closing = Promise.all(open.map((membership) => membership.close()));
      await clock.advance(10_000);
      await closing;
      await coordinator.close();
    },
  };
}

function createTestNode(membership: Membership, faults: FaultSwitch, own: Freezer): TestNode {
  const views = [membership.view];
  membership.onView((view) => void views.push(view));
  const cut = (): void => {
    faults.fault = () => hanging;
  };
  const heal = (): void => {
    faults.fault = () => none;
  };
  return {
    membership,
    faults,
    views,
    names: () => membership.view.nodes.map(({ name }) => name),
    cut,
    heal,
    freeze: () => {
      own.freeze();
      cut();
    },
    thaw: () => {
      heal();
      own.thaw();
    },
  };
}

interface Freezer extends Clock {
  freeze(): void;
  thaw(): void;
}

/** A clock whose timers wait while it is frozen; time passes all the same. */
function createFreezer(clock: Clock): Freezer {
  let held: (() => void)[] | null = null;
  const gate = (run: () => void): void => {
    if (held === null) run();
    else held.push(run);
  };
  return {
    now: () => clock.now(),
    after: (ms, run) => {
      let status: "set" | "cancelled" = "set";
      const cancel = clock.after(ms, () => gate(() => status === "set" && run()));
      return () => {
        status = "cancelled";
        cancel();
      };
    },
    soon: (run) => clock.soon(() => gate(run)),
    freeze: () => {
      held ??= [];
    },
    thaw: () => {
      const late = held ?? [];
      held = null;
      for (const run of late) run();
    },
  };
}
