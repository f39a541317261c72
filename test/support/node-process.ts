import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { heapFlags } from "../../node/heap-flags.ts";
import { repository } from "./repository.ts";

/** A real node in a process of its own, as `starling node` starts it. */
export interface NodeProcess {
  readonly pid: number;
  /** gRPC, `host:port`. */
  readonly address: string;
  /** Metrics and health, `host:port`; a free one unless the environment says otherwise. */
  readonly httpAddress: string | null;
  /** Everything that it logged, as JSON lines. */
  readonly log: readonly string[];
  /** Resolves with the exit code, or the signal that ended it. */
  readonly ended: Promise<number | string>;
  /** Graceful: SIGTERM, then its end. */
  stop(): Promise<number | string>;
  kill(): Promise<void>;
  freeze(): void;
  thaw(): void;
  /** The first logged line, from now or before, that a test accepts. */
  logged(matches: (line: string) => boolean, withinMs?: number): Promise<string>;
}

export interface NodeProcessOptions {
  readonly configDir: string;
  readonly databaseUrl?: string;
  /** Further ones, a list. */
  readonly databaseUrls?: string;
  readonly dataDir?: string;
  readonly flags?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly startWithinMs?: number;
  /** What it runs; default this build's. */
  readonly program?: string;
}

/** Variables that tests read: a node would take them for settings with a slip. */
const variablesOfTests = { STARLING_SEED: "", STARLING_KILLS: "", STARLING_TEST_DATABASES: "" };

/** The default is beside gRPC's port, which may be another node's in a test. */
const anyHttpPort = { STARLING_HTTP_LISTEN: "127.0.0.1:0" };

const main = join(repository, "dist/node/cli/main.js");

/** Starts a node and waits until it serves. Its end before that rejects with what it logged. */
export async function startNodeProcess(options: NodeProcessOptions): Promise<NodeProcess> {
  const flags = [...(options.flags ?? [])];
  if (options.databaseUrl !== undefined) flags.push("--database-url", options.databaseUrl);
  if (options.databaseUrls !== undefined) flags.push("--database-urls", options.databaseUrls);
  if (options.dataDir !== undefined) flags.push("--data-dir", options.dataDir);
  const child = spawn(
    process.execPath,
    [...heapFlags, options.program ?? main, "node", options.configDir, "--listen", "127.0.0.1:0", ...flags],
    {
      env: { ...process.env, ...variablesOfTests, ...anyHttpPort, ...options.env },
      stdio: ["ignore", "ignore", "pipe"],
    },
  );
  const node = watch(child);
  const line = await Promise.race([
    node.logged((text) => text.includes('"msg":"serving"'), options.startWithinMs ?? 60_000),
    node.ended.then((code) => {
      throw new Error(`the node ended with ${code} before it served:\n${node.log.join("\n")}`);
    }),
  ]).catch(async (error: unknown) => {
    await node.kill(); // one that is late would be nobody's
    throw error;
  });
  const { address, http } = JSON.parse(line) as { address: string; http: string | null };
  return { ...node, address, httpAddress: http };
}

function watch(child: ChildProcess): Omit<NodeProcess, "address" | "httpAddress"> {
  const log: string[] = [];
  const waiting = new Set<{ matches: (line: string) => boolean; found: (line: string) => void }>();
  if (child.stderr === null || child.pid === undefined) throw new Error("the node could not be started");
  createInterface({ input: child.stderr }).on("line", (line) => {
    log.push(line);
    for (const one of waiting) {
      if (!one.matches(line)) continue;
      waiting.delete(one);
      one.found(line);
    }
  });
  const ended = once(child, "exit").then(([code, signal]) => (code as number | null) ?? (signal as string));
  return {
    pid: child.pid,
    log,
    ended,
    stop: () => {
      child.kill("SIGTERM");
      return ended;
    },
    kill: async () => {
      child.kill("SIGKILL");
      await ended;
    },
    freeze: () => void child.kill("SIGSTOP"),
    thaw: () => void child.kill("SIGCONT"),
    logged: (matches, withinMs = 30_000) => {
      const known = log.find(matches);
      if (known !== undefined) return Promise.resolve(known);
      return new Promise((resolve, reject) => {
        const one = { matches, found: (line: string) => finish(() => resolve(line)) };
        const timer = setTimeout(
          () =>
            finish(() => reject(new Error(`not logged within ${withinMs} ms; the log:\n${log.slice(-30).join("\n")}`))),
          withinMs,
        );
        const finish = (then: () => void): void => {
          clearTimeout(timer);
          waiting.delete(one);
          then();
        };
        waiting.add(one);
      });
    },
  };
}
