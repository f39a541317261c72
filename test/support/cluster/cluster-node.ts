import { setTimeout } from "node:timers/promises";
import { type NodeProcess, type NodeProcessOptions, startNodeProcess } from "../node-process.ts";

/** A place in the cluster at which one node process after another runs, all under one name and one address. */
export interface ClusterNode {
  readonly name: string;
  /** gRPC, `host:port`, behind the proxy. */
  readonly address: string;
  /** The process that runs; null between its end and the next start. */
  readonly process: NodeProcess | null;
  /** Resolves when it serves. As a supervisor does, it starts again what ends before that, some `tries` times. */
  start(options?: { readonly tries?: number }): Promise<void>;
  /** SIGTERM; returns the exit code, or the signal that ended it. */
  stop(): Promise<number | string>;
  kill(): Promise<void>;
  /** Kills what runs, or is being started, and starts nothing any more. */
  close(): Promise<void>;
  freeze(): void;
  thaw(): void;
  /** What all its processes logged. */
  log(): readonly string[];
  /** Ends that nobody asked for, and starts that failed, each with what was said last. */
  readonly mishaps: readonly Mishap[];
}

export interface Mishap {
  readonly kind: "ended" | "not started";
  readonly text: string;
}

export interface ClusterNodeOptions {
  readonly name: string;
  readonly address: string;
  readonly process: NodeProcessOptions;
}

const retryMs = 500;

/** Creates the place; nothing runs yet. */
export function createClusterNode({ name, address, process: options }: ClusterNodeOptions): ClusterNode {
  const mishaps: Mishap[] = [];
  const logs: (readonly string[])[] = [];
  let running: NodeProcess | null = null;
  const watch = (node: NodeProcess): void => {
    void node.ended.then((how) => {
      if (running !== node) return;
      running = null;
      mishaps.push({ kind: "ended", text: `${name} ended with ${how}: ${node.log.slice(-5).join("\n")}` });
    });
  };
  /** From now on the end of the process is expected. */
  const release = (): NodeProcess => {
    const node = running;
    if (node === null) throw new Error(`${name} does not run`);
    running = null;
    return node;
  };
  const required = (): NodeProcess => {
    if (running === null) throw new Error(`${name} does not run`);
    return running;
  };
  let isClosed = false;
  let starting: Promise<unknown> = Promise.resolve();
  const start = async (tries: number): Promise<void> => {
    for (let attempt = 1; !isClosed; attempt++) {
      try {
        const node = await startNodeProcess(options);
        running = node;
        logs.push(node.log);
        watch(node);
        return;
      } catch (error) {
        const text = error instanceof Error ? error.message : String(error);
        mishaps.push({ kind: "not started", text: `${name}: ${text}` });
        logs.push(text.split("\n"));
        if (attempt >= tries) throw error;
        await setTimeout(retryMs);
      }
    }
  };
  return {
    ...{ name, address, mishaps },
    get process() {
      return running;
    },
    start: ({ tries = 60 } = {}) => {
      const started = start(tries);
      starting = Promise.allSettled([starting, started]);
      return started;
    },
    stop: () => release().stop(),
    kill: () => release().kill(),
    close: async () => {
      isClosed = true;
      await starting;
      if (running !== null) await release().kill();
    },
    freeze: () => required().freeze(),
    thaw: () => required().thaw(),
    log: () => logs.flat(),
  };
}
