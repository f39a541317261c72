import { constants } from "node:fs";
import { access, stat, statfs } from "node:fs/promises";
import { dirname } from "node:path";
import { userOf } from "../data-folder.ts";
import { createReport, type Finding, formatBytes } from "./finding.ts";

/** The data folder, or, as long as there is none, the folder in which it will be made. */
export interface FolderFacts {
  readonly path: string;
  readonly kind: "folder" | "missing" | "no folder";
  readonly isWritable: boolean;
  readonly ownerUid: number;
  /** Of this process; null on systems that have none. */
  readonly uid: number | null;
  readonly freeBytes: number;
  /** The process that uses it. */
  readonly user: number | null;
}

const freeWarningBytes = 1024 ** 3;
const freeProblemBytes = 128 * 1024 ** 2;

export async function readFolder(path: string): Promise<FolderFacts> {
  const found = await nearest(path);
  const about = await stat(found);
  const space = await statfs(found);
  return {
    path,
    kind: found !== path ? "missing" : about.isDirectory() ? "folder" : "no folder",
    isWritable: await access(found, constants.W_OK | constants.X_OK).then(
      () => true,
      () => false,
    ),
    ownerUid: about.uid,
    uid: process.getuid?.() ?? null,
    freeBytes: space.bavail * space.bsize,
    user: await userOf(path),
  };
}

/** The path itself or the first one above it that exists. */
async function nearest(path: string): Promise<string> {
  for (let at = path; ; at = dirname(at)) {
    const exists = await stat(at).then(
      () => true,
      (error: NodeJS.ErrnoException) => error.code !== "ENOENT",
    );
    if (exists || at === dirname(at)) return at;
  }
}

/** Judges the data folder; `embedded`: the data themselves are there, as there is no `database_url`. */
export function judgeFolder(facts: FolderFacts, embedded: boolean): readonly Finding[] {
  const { path, kind, isWritable, ownerUid, uid, freeBytes, user } = facts;
  const report = createReport(`data folder ${path}`);
  if (kind === "no folder") {
    const remedy = "give the node another `data_dir`";
    report.problem("folder", { found: "it is no folder", expected: "a folder", remedy });
    return report.findings;
  }
  if (!isWritable) {
    const found = kind === "missing" ? "it is missing, and cannot be made" : "it cannot be written";
    const remedy = `chown it to the account of the node, or run this as that account; now it is of uid ${ownerUid}, this is uid ${uid}`;
    report.problem("folder", { found, expected: "a folder of the node's account", remedy });
  } else if (kind === "missing") report.ok("folder", "missing: the first start makes it");
  else report.ok("folder", user === null ? "no node uses it now" : `used by the node of process ${user}`);
  const place = embedded
    ? "the data, the log and their growth"
    : "compiled modules and what else stays on this machine";
  const complaint = {
    found: `${formatBytes(freeBytes)} free`,
    expected: `${formatBytes(freeWarningBytes)} or more, for ${place}`,
    remedy: "make room on that disk, or give the node another `data_dir`",
  };
  if (freeBytes < freeProblemBytes) report.problem("disk", complaint);
  else if (freeBytes < freeWarningBytes) report.warning("disk", complaint);
  else report.ok("disk", complaint.found);
  return report.findings;
}
