import { readdir, readFile, readlink } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { commandOf } from "../data-folder.ts";
import { createReport, type Finding } from "./finding.ts";

/** Whether an address can be listened on. */
export type AddressFacts =
  | { readonly kind: "free" }
  | { readonly kind: "taken"; readonly holder: PortHolder | null }
  /** `reason`: the system's code, as `EADDRNOTAVAIL`. */
  | { readonly kind: "refused"; readonly reason: string };

/** The program that listens on a port, as far as the system tells this account. */
export interface PortHolder {
  readonly pid: number;
  readonly command: string;
  /** It stands still: frozen by SIGSTOP, a debugger or a suspended container. */
  readonly isStopped: boolean;
}

/** Tries to listen on `host:port`, for a moment. */
export async function readAddress(listen: string): Promise<AddressFacts> {
  const { host, port } = splitAddress(listen);
  const reason = await tryToListen(host, port);
  if (reason === null) return { kind: "free" };
  return reason === "EADDRINUSE" ? { kind: "taken", holder: await holderOf(port) } : { kind: "refused", reason };
}

/** `[::1]:80` as `::1` and 80. */
export function splitAddress(address: string): { readonly host: string; readonly port: number } {
  const [, host = "", port = ""] = /^(.*):(\d+)$/.exec(address) ?? [];
  return { host: host.replace(/^\[(.*)\]$/, "$1"), port: Number(port) };
}

function tryToListen(host: string, port: number): Promise<string | null> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    server.listen({ host, port, exclusive: true }, () => server.close(() => resolve(null)));
  });
}

const processesMax = 20_000;
const listening = "0A";

/** Linux only: the socket's number stands in the table of connections, and among the files of its process. */
async function holderOf(port: number): Promise<PortHolder | null> {
  const tables = await Promise.all(
    ["tcp", "tcp6"].map((name) => readFile(`/proc/net/${name}`, "utf8").catch(() => "")),
  );
  const hexPort = port.toString(16).toUpperCase().padStart(4, "0");
  const sockets = new Set(
    tables
      .flatMap((table) => table.split("\n").map((line) => line.trim().split(/\s+/)))
      .filter((fields) => fields[1]?.endsWith(`:${hexPort}`) === true && fields[3] === listening)
      .map((fields) => `socket:[${fields[9]}]`),
  );
  if (sockets.size === 0) return null;
  const names = await readdir("/proc").catch(() => []);
  for (const name of names.filter((each) => /^\d+$/.test(each)).slice(0, processesMax)) {
    if (await holdsOne(name, sockets)) {
      return { pid: Number(name), command: (await commandOf(Number(name))).trim(), isStopped: await isStopped(name) };
    }
  }
  return null;
}

async function holdsOne(pid: string, sockets: ReadonlySet<string>): Promise<boolean> {
  const folder = `/proc/${pid}/fd`;
  const files = await readdir(folder).catch(() => []); // another account's, or it ended
  for (const file of files) if (sockets.has(await readlink(join(folder, file)).catch(() => ""))) return true;
  return false;
}

async function isStopped(pid: string): Promise<boolean> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
  return /^\) [Tt]/.test(stat.slice(stat.lastIndexOf(")")));
}

/** Judges the address on which the node is to listen; `serves`: a node of Starling answers there. */
export function judgeAddress(listen: string, facts: AddressFacts, serves: boolean): readonly Finding[] {
  const report = createReport(`listen ${listen}`);
  if (facts.kind === "free") report.ok("address", "free");
  else if (facts.kind === "taken" && serves) report.ok("address", `a node answers there${textOf(facts.holder)}`);
  else if (facts.kind === "taken") {
    const stopped = facts.holder?.isStopped === true;
    const remedy = stopped
      ? `it stands still: kill -CONT ${facts.holder?.pid} lets it go on, kill -KILL ends it`
      : "end that program, or give the node another `listen`";
    report.problem("address", { found: `taken${textOf(facts.holder)}`, expected: "a free port", remedy });
  } else {
    const remedy =
      facts.reason === "EACCES"
        ? "take a port above 1023, or give the account the right to lower ones"
        : "name an address of this machine in `listen`, or 0.0.0.0 for all of them";
    report.problem("address", { found: facts.reason, expected: "an address that can be listened on", remedy });
  }
  return report.findings;
}

function textOf(holder: PortHolder | null): string {
  if (holder === null) return "";
  const { pid, command, isStopped } = holder;
  const name = command.length > 200 ? `${command.slice(0, 199)}…` : command;
  return `, process ${pid}${isStopped ? ", which stands still" : ""}${name === "" ? "" : `: ${name}`}`;
}
