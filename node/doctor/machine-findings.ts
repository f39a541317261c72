import { readFile } from "node:fs/promises";
import { totalmem } from "node:os";
import { getHeapStatistics } from "node:v8";
import type { Settings } from "../config/settings.ts";
import { createReport, type Finding, formatBytes } from "./finding.ts";

/** What this process may have of the machine. A service may have other limits than a person's shell. */
export interface MachineFacts {
  /** `20.19.0` */
  readonly nodeVersion: string;
  /** Null: the system does not say, or there is no limit. */
  readonly openFilesMax: number | null;
  /** Of the machine or, if that is less, of the container. */
  readonly memoryBytes: number;
  /** What V8 lets JavaScript have. */
  readonly heapMaxBytes: number;
}

/** As in package.json. */
export const nodeVersionMin = "20.19.0";

/** What a node takes besides what its settings bound: code, connections, what waits for PostgreSQL. */
const baseBytes = 256 * 1024 * 1024;
/** The collector needs room to work in. */
const roomFactor = 1.5;
/** Files of a node that are no connections of senders. */
const ownFiles = 256;

export async function readMachine(): Promise<MachineFacts> {
  // Zero: not limited by a container; some systems say so by a huge number.
  const constrained = process.constrainedMemory?.() ?? 0;
  return {
    nodeVersion: process.versions.node,
    openFilesMax: await readOpenFilesMax(),
    memoryBytes: constrained > 0 ? Math.min(constrained, totalmem()) : totalmem(),
    heapMaxBytes: getHeapStatistics().heap_size_limit,
  };
}

/** Node.js raises its soft limit to the hard one when it starts, so this is what a node would have. */
async function readOpenFilesMax(): Promise<number | null> {
  // There is no such file but on Linux.
  const text = await readFile("/proc/self/limits", "utf8").catch(() => "");
  const [, soft = ""] = /^Max open files\s+(\S+)/m.exec(text) ?? [];
  return /^\d+$/.test(soft) ? Number(soft) : null;
}

type MachineExpectation = Pick<Settings, "residentMaxBytes" | "backlogMaxBytes" | "sessionMaxCount">;

/** Judges the machine; `settings` null: they could not be read. */
export function judgeMachine(facts: MachineFacts, settings: MachineExpectation | null): readonly Finding[] {
  const report = createReport("machine");
  const { nodeVersion, openFilesMax, memoryBytes, heapMaxBytes } = facts;
  if (isAtLeast(nodeVersion, nodeVersionMin)) report.ok("node.js", nodeVersion);
  else {
    const remedy = "install a newer Node.js";
    report.problem("node.js", { found: nodeVersion, expected: `${nodeVersionMin} or newer`, remedy });
  }
  if (settings === null) return report.findings;
  const files = settings.sessionMaxCount + ownFiles;
  if (openFilesMax === null || openFilesMax >= files) report.ok("open files", `${openFilesMax ?? "no limit"}`);
  else {
    report.warning("open files", {
      found: `at most ${openFilesMax}`,
      expected: `${files}: one for each of session_max_count, and ${ownFiles}`,
      remedy: "LimitNOFILE in the systemd unit, ulimit -Hn in a shell, or a lower `session_max_count`",
    });
  }
  const bounded = settings.residentMaxBytes + settings.backlogMaxBytes;
  const bounds = `resident_max_bytes + backlog_max_bytes = ${formatBytes(bounded)}`;
  for (const { check, has, base, remedy } of [
    { check: "memory", has: memoryBytes, base: baseBytes, remedy: "give the machine or the container more memory" },
    { check: "heap", has: heapMaxBytes, base: 0, remedy: "NODE_OPTIONS=--max-old-space-size=MEGABYTES" },
  ]) {
    const wanted = bounded * roomFactor + base;
    const found = formatBytes(has);
    if (has >= wanted) {
      report.ok(check, found);
      continue;
    }
    const complaint = {
      found,
      expected: `${formatBytes(wanted)}: one and a half times ${bounds}${base === 0 ? "" : `, and ${formatBytes(base)}`}`,
      remedy: `${remedy}, or lower these settings`,
    };
    if (has < bounded) report.problem(check, complaint);
    else report.warning(check, complaint);
  }
  return report.findings;
}

function isAtLeast(version: string, least: string): boolean {
  const [mine, other] = [version, least].map((text) => text.split(".").map((part) => Number.parseInt(part, 10)));
  for (const [index, number] of (other ?? []).entries()) {
    const have = mine?.[index] ?? 0;
    if (have !== number) return have > number;
  }
  return true;
}
