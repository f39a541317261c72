import type { NodeId, ShardId } from "../../proto/ids.ts";
import { toStarlingError } from "../../proto/starling-error.ts";
import type { AppendRequest, WriteResult } from "./store.ts";

export type Append = (node: NodeId, request: AppendRequest) => Promise<WriteResult>;

/**
 * Small appends that are asked for in one turn of the event loop as one. A batch has parts for most shards, so all lanes of a
 * node begin to append together; and a transaction costs the node and PostgreSQL about the same, whatever little is in it.
 *
 * 1. Each asker hears what became of its own request: all together is written, or nothing. It may ask again as it likes (R3).
 * 2. Where shards are lost, nothing is written: who asked with them is told which, for the others the rest is appended.
 * 3. What is refused for its data is appended again one by one, so that nobody has to halve a group for another's item (R4).
 * 4. What is not small goes at once: it gains nothing, and a turn of a busy node is long.
 */
export function joinAppends(append: Append, soon: (run: () => void) => void): Append {
  let waiting: Waiting[] = [];
  const send = (): void => {
    const nodes = groupByNode(waiting);
    waiting = [];
    for (const group of nodes.values()) void appendGroup(append, group);
  };
  return (node, request) => {
    if (sizeOf(request) > smallMax) return append(node, request);
    return new Promise((resolve, reject) => {
      if (waiting.length === 0) soon(send);
      waiting.push({ node, request, resolve, reject });
    });
  };
}

interface Waiting {
  readonly node: NodeId;
  readonly request: AppendRequest;
  readonly resolve: (result: WriteResult) => void;
  readonly reject: (error: unknown) => void;
}

/** Datapoints of an append that costs little beside its transaction. */
const smallMax = 200;

function groupByNode(all: readonly Waiting[]): Map<NodeId, Waiting[]> {
  const nodes = new Map<NodeId, Waiting[]>();
  for (const one of all) nodes.set(one.node, [...(nodes.get(one.node) ?? []), one]);
  return nodes;
}

function sizeOf({ segments }: AppendRequest): number {
  return segments.reduce((sum, { seq, lastSeq }) => sum + lastSeq - seq + 1, 0);
}

/** Never rejects. */
async function appendGroup(append: Append, group: readonly Waiting[]): Promise<void> {
  const [first] = group;
  if (first === undefined) return;
  try {
    const { lost } = await append(first.node, group.length === 1 ? first.request : joined(group));
    if (lost.length === 0) for (const { resolve } of group) resolve({ lost });
    else await appendRest(append, group, lost);
  } catch (error) {
    const isRefused = toStarlingError(error).code === "STORE_REFUSED";
    if (isRefused && group.length > 1) for (const one of group) void appendGroup(append, [one]);
    else for (const { reject } of group) reject(error);
  }
}

async function appendRest(append: Append, group: readonly Waiting[], lost: readonly ShardId[]): Promise<void> {
  const gone = new Set(lost);
  const rest: Waiting[] = [];
  for (const one of group) {
    const own = one.request.fences.flatMap(({ shard }) => (gone.has(shard) ? [shard] : []));
    if (own.length > 0) one.resolve({ lost: own });
    else rest.push(one);
  }
  if (rest.length === group.length) throw new Error(`nobody asked with the shards that are lost: ${lost.join()}`);
  await appendGroup(append, rest);
}

function joined(group: readonly Waiting[]): AppendRequest {
  const closings = group.flatMap(({ request }) => request.closings ?? []);
  return {
    fences: group.flatMap(({ request }) => request.fences),
    segments: group.flatMap(({ request }) => request.segments),
    ...(closings.length > 0 && { closings }),
  };
}
