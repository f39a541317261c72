import type { Lifetimes, Queries, Store } from "../../actors/store/store.ts";
import type { Obituaries } from "../../actors/store/stored-link.ts";
import { loseElsewhere, unlessFenced, watchWorld } from "../../actors/store/world.ts";
import type { Clock } from "../../proto/clock.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import type { MemoryStore } from "../support/memory-store.ts";
import type { CoordinatorStore } from "./sim-coordinator.ts";
import type { SimProcess } from "./sim-process.ts";

/**
 * What befalls one call of a node. `lost`: it never reaches the database; `unanswered`: it does, and the answer is lost;
 * either way the node hears of it at its deadline, or at once when the connection was `reset`.
 */
export interface StoreFault {
  readonly kind: "none" | "lost" | "unanswered";
  readonly reset: boolean;
  /** On the way there, and back. */
  readonly thereMs: number;
  readonly backMs: number;
}

/** A node's sessions with the database. Those of before another server took over are gone, and each new one asks where it is. */
export interface SimSessions {
  /** Where the database is. */
  readonly timeline: number;
  /** Null: there is a session. Raises FENCED in another world. */
  begin(): Promise<void> | null;
}

export function createSimSessions(database: MemoryStore, onOtherWorld: (error: StarlingError) => void): SimSessions {
  const watch = watchWorld(onOtherWorld);
  let timeline = 0;
  const ask = async (): Promise<void> => {
    const { world } = database;
    await watch.check({ query: async <Row extends object>() => [world] as unknown as Row[] });
    timeline = world.timeline;
  };
  return {
    get timeline() {
      return database.world.timeline;
    },
    begin: () => (timeline === database.world.timeline ? null : ask()),
  };
}

export interface SimStoreOptions {
  readonly database: MemoryStore;
  readonly sessions: SimSessions;
  readonly process: SimProcess;
  readonly clock: Clock;
  readonly faultOf: (call: string) => StoreFault;
  /** Told how many calls are under way. */
  readonly onPending: (change: 1 | -1, call: string) => void;
}

const deadlineMs = 3000;

/** A node's way to the database: calls take time, and may fail before or after they had their effect. */
export function connectSimStore(options: SimStoreOptions): Store & Queries & Obituaries & Lifetimes {
  const { database } = options;
  const wrap =
    <A extends unknown[], T>(name: string, call: (...args: A) => Promise<T>) =>
    (...args: A): Promise<T> =>
      carry(options, name, () => call(...args));
  const release = wrap("release", database.release);
  const append = wrap("append", database.append);
  const flush = wrap("flush", database.flush);
  return {
    acquire: wrap("acquire", database.acquire),
    readOwners: wrap("readOwners", database.readOwners),
    release: (...args) => release(...args).catch(unlessFenced(() => undefined)),
    append: (node, request) => append(node, request).catch(loseElsewhere(request.fences)),
    flush: (node, request) => flush(node, request).catch(loseElsewhere(request.fences)),
    load: wrap("load", database.load),
    readLog: wrap("readLog", database.readLog),
    findParts: wrap("findParts", database.findParts),
    readUnpassed: wrap("readUnpassed", database.readUnpassed),
    places: wrap("places", database.places),
    readTickPage: wrap("readTickPage", database.readTickPage),
    links: wrap("links", database.links),
    obituaries: wrap("obituaries", database.obituaries),
    referrers: wrap("referrers", database.referrers),
    bury: wrap("bury", database.bury),
    toLookAt: wrap("toLookAt", database.toLookAt),
    inhabitants: wrap("inhabitants", database.inhabitants),
    referred: wrap("referred", database.referred),
    readChannel: wrap("readChannel", database.readChannel),
    openSession: wrap("openSession", database.openSession),
    closeSession: wrap("closeSession", database.closeSession),
    useSession: wrap("useSession", database.useSession),
    findClosed: wrap("findClosed", database.findClosed),
    list: wrap("list", database.list),
    count: wrap("count", database.count),
    raw: wrap("raw", database.raw),
    historyRows: wrap("historyRows", database.historyRows),
    historyPages: wrap("historyPages", database.historyPages),
    historyHorizons: wrap("historyHorizons", database.historyHorizons),
    deadLetters: wrap("deadLetters", database.deadLetters),
    deadLetter: wrap("deadLetter", database.deadLetter),
    countDeadLetters: wrap("countDeadLetters", database.countDeadLetters),
    discardDeadLetter: wrap("discardDeadLetter", database.discardDeadLetter),
  };
}

/** Whether the database answers the node. */
export function pingSimStore(options: Omit<SimStoreOptions, "database">): Promise<void> {
  return carry(options, "ping", async () => {});
}

/** A node's way to what the coordinator of snapshot runs reads and writes. */
export function connectSimRuns(options: Omit<SimStoreOptions, "database">, runs: CoordinatorStore): CoordinatorStore {
  const wrap =
    <A extends unknown[], T>(name: string, call: (...args: A) => Promise<T>) =>
    (...args: A): Promise<T> =>
      carry(options, name, () => call(...args));
  return {
    readTicks: wrap("readTicks", runs.readTicks),
    readRuns: wrap("readRuns", runs.readRuns),
    beginRun: wrap("beginRun", runs.beginRun),
    noteRun: wrap("noteRun", runs.noteRun),
    endRun: wrap("endRun", runs.endRun),
    addRequest: wrap("addRequest", runs.addRequest),
    readRequests: wrap("readRequests", runs.readRequests),
    readRequest: wrap("readRequest", runs.readRequest),
    readProgress: wrap("readProgress", runs.readProgress),
    readMarks: wrap("readMarks", runs.readMarks),
    readNodes: wrap("readNodes", runs.readNodes),
    readOwnerNodes: wrap("readOwnerNodes", runs.readOwnerNodes),
  };
}

function carry<T>(
  { sessions, process, clock, faultOf, onPending }: Omit<SimStoreOptions, "database">,
  name: string,
  call: () => Promise<T>,
): Promise<T> {
  const fault = faultOf(name);
  const { timeline } = sessions;
  onPending(1, name);
  return process.answer<T>((resolve, reject) => {
    let status: "open" | "settled" = "open";
    const settle = (end: () => void): void => {
      if (status === "settled") return;
      status = "settled";
      cancel();
      onPending(-1, name);
      end();
    };
    const fail = (text: string): void => settle(() => reject(new StarlingError("STORE", `${name}: ${text}`)));
    const cancel = clock.after(deadlineMs, () => fail("no answer within the deadline"));
    clock.after(fault.thereMs, () => {
      if (fault.kind === "lost") return fault.reset ? fail("the connection was reset") : undefined;
      if (timeline !== sessions.timeline) return fail("the connection was reset");
      const back = (end: () => void): void => {
        if (fault.kind === "none") clock.after(fault.backMs, () => settle(end));
        else if (fault.reset) clock.after(fault.backMs, () => fail("the connection was reset"));
      };
      const session = sessions.begin();
      (session === null ? call() : session.then(call)).then(
        (value) => back(() => resolve(value)),
        (error: unknown) => back(() => reject(error)),
      );
    });
  });
}
