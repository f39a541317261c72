import type { Stage, Surrounding } from "./stage.ts";

/** Of a V8 CPU profile (`Profiler.Profile` of the inspector's protocol) what is read here. */
export interface CpuProfile {
  readonly nodes: readonly ProfileNode[];
}

/** A function at one place of the call tree. */
export interface ProfileNode {
  readonly id: number;
  readonly callFrame: { readonly functionName: string; readonly url: string };
  /** Samples that found this frame on top. */
  readonly hitCount?: number;
  readonly children?: readonly number[];
}

/** Where a sample belongs: `threads` has none, since the main thread alone is sampled. */
export type Share = Stage | Exclude<Surrounding, "threads"> | "idle";

/** What a profile comes to. */
export interface ProfileShares {
  /** Samples. */
  readonly hits: ReadonlyMap<Share, number>;
  /** The frames on top of the samples that went to `other`, the most frequent first. */
  readonly others: readonly { readonly frame: string; readonly hits: number }[];
}

type Rule = Share | Readonly<Record<string, Share>>;

/**
 * By place (see `placeOf`): whose its functions are. A sample belongs to the innermost of its frames that has a
 * rule, so files that serve several stages (line.ts, pack.ts, the data types) have none. Rules with names of
 * functions: `*` are all others.
 */
const rules: Readonly<Record<string, Rule>> = {
  "proto/read-batch": "decode",
  "actors/sessions/batch-hash": "decode",
  "modules/check-datapoint": "validate",
  "actors/sessions/wire-datapoint": "validate",
  "actors/sessions/batch": "route",
  "node/grpc/ingest-session": { "#onBatch": "route" },
  "actors/sessions/stream": { onBatch: "route", "*": "acknowledge" },
  "actors/sessions/session": { openBatch: "route", "*": "acknowledge" },
  "actors/start-engine": "route",
  "actors/sessions/acks": "acknowledge",
  "actors/sessions/wire-token": "acknowledge",
  "actors/lane/admission": { admit: "append", take: "append", "*": "acknowledge" },
  "actors/lane/commit": {
    startCommit: "append",
    buildSegment: "append",
    requestOf: "append",
    loseShards: "other",
    "*": "process",
  },
  "actors/log/segment": "append",
  "actors/store/append": "append",
  "actors/store/partition": "append",
  "actors/lane/processing": "process",
  "actors/lane/entity": { writeState: "flush", "*": "process" },
  "actors/hooks/hook-runner": "process",
  "actors/lane/residency": "process",
  "actors/store/load": "process",
  "actors/lane/flush": "flush",
  "actors/store/flush": "flush",
  "actors/store/connection": "client",
  postgres: "client",
  "@grpc/grpc-js": "grpc",
  "node/grpc/service": { encode: "acknowledge", "*": "grpc" },
  "node:internal/http2/core": "grpc",
  "node:internal/http2/util": "grpc",
  "node:internal/http2/compat": "grpc",
};

/** What V8 calls what is no function. */
const special: Readonly<Record<string, Share>> = {
  "(idle)": "idle",
  "(garbage collector)": "gc",
  "(program)": "native",
};

/** Shares the samples of a profile out. */
export function shareProfile({ nodes }: CpuProfile): ProfileShares {
  const byId = new Map(nodes.map((node) => [node.id, node]));
  const children = new Set(nodes.flatMap((node) => node.children ?? []));
  const hits = new Map<Share, number>();
  const others = new Map<string, number>();
  const open = nodes.filter(({ id }) => !children.has(id)).map((node) => ({ node, above: "other" as Share }));
  // Without recursion: call trees may be deep.
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    const { node, above } = next;
    const share = shareOf(node) ?? above;
    const count = node.hitCount ?? 0;
    hits.set(share, (hits.get(share) ?? 0) + count);
    if (share === "other" && count > 0) others.set(frameOf(node), (others.get(frameOf(node)) ?? 0) + count);
    for (const id of node.children ?? []) {
      const child = byId.get(id);
      if (child !== undefined) open.push({ node: child, above: share });
    }
  }
  const sorted = [...others].sort((a, b) => b[1] - a[1]).map(([frame, hits]) => ({ frame, hits }));
  return { hits, others: sorted };
}

function shareOf({ callFrame: { functionName, url } }: ProfileNode): Share | null {
  if (url === "") return special[functionName] ?? null;
  const rule = rules[placeOf(url)];
  if (rule === undefined || typeof rule === "string") return rule ?? null;
  return rule[functionName] ?? rule["*"] ?? null;
}

/** A file of ours from the root and without its ending, the name of a package, or a module of Node.js. */
function placeOf(url: string): string {
  const inPackage = /.*\/node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(url);
  if (inPackage !== null) return inPackage[1] ?? "";
  return url.replace(/^.*\/dist\//, "").replace(/\.js$/, "");
}

function frameOf({ callFrame: { functionName, url } }: ProfileNode): string {
  return `${functionName === "" ? "(anonymous)" : functionName} ${url === "" ? "" : placeOf(url)}`.trim();
}
