import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { StarlingError } from "../../proto/starling-error.ts";
import { type Child, startChild } from "./child.ts";
import { anyFreePort } from "./free-port.ts";

/** An etcd of one member on loopback. */
export interface LocalEtcd extends Child {
  /** `host:port`. */
  readonly endpoint: string;
}

export interface LocalEtcdOptions {
  readonly binary: string;
  /** Its data: another start finds them. */
  readonly dataDir: string;
  readonly env: NodeJS.ProcessEnv;
  readonly onLine: (line: string) => void;
}

const startWithinMs = 20_000;

/** Starts an etcd; resolves when it serves. Raises CONFIG when there is none, or it does not start. */
export async function startLocalEtcd({ binary, dataDir, env, onLine }: LocalEtcdOptions): Promise<LocalEtcd> {
  const client = `127.0.0.1:${await anyFreePort()}`;
  const peer = `http://127.0.0.1:${await anyFreePort()}`;
  let onServing = (): void => {};
  const serving = new Promise<"serving">((resolve) => {
    onServing = () => resolve("serving");
  });
  const child = await startChild({
    command: [binary, ...flagsOf(dataDir, client, peer)],
    // Its other variables would be settings of another etcd.
    env: { PATH: env.PATH, ETCD_UNSUPPORTED_ARCH: env.ETCD_UNSUPPORTED_ARCH },
    onLine: (line) => {
      if (line.includes("serving") && line.includes("client")) onServing();
      onLine(line);
    },
  });
  const how = await Promise.race([serving, child.ended, delay(startWithinMs, "late", { ref: false })]);
  if (how === "serving") return { ...child, endpoint: client };
  if (how === "late") await child.stop(0);
  const said = child.lastLines.at(-1) ?? "it said nothing";
  throw new StarlingError("CONFIG", `etcd (${binary}) did not start: ${said}`);
}

/** Timing as by default would make it wait for a second until it has elected itself. */
function flagsOf(dataDir: string, client: string, peer: string): string[] {
  return [
    "--name=local",
    `--data-dir=${dataDir}`,
    `--listen-client-urls=http://${client}`,
    `--advertise-client-urls=http://${client}`,
    `--listen-peer-urls=${peer}`,
    `--initial-advertise-peer-urls=${peer}`,
    `--initial-cluster=local=${peer}`,
    "--heartbeat-interval=50",
    "--election-timeout=500",
    "--logger=zap",
    "--auto-compaction-mode=periodic",
    "--auto-compaction-retention=1h",
  ];
}

/** The etcd on the PATH. Raises CONFIG, which says where to get one. */
export function findEtcd(env: NodeJS.ProcessEnv): string {
  for (const folder of (env.PATH ?? "").split(delimiter)) {
    const program = join(folder, process.platform === "win32" ? "etcd.exe" : "etcd");
    if (folder !== "" && isExecutable(program)) return program;
  }
  const packages = "Debian and Ubuntu: apt-get install etcd-server; macOS: brew install etcd";
  throw new StarlingError(
    "CONFIG",
    `there is no etcd on the PATH: install one (${packages}), or name one by --etcd-binary`,
  );
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false; // not there, or not to be run
  }
}
