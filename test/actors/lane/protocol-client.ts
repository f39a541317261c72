import type { Part, PartEvent, PartTask } from "../../../actors/lane/part.ts";
import type { CheckedTask } from "../../../modules/datapoint.ts";
import type { ShardId } from "../../../proto/ids.ts";
import { shardOf } from "../../../proto/shard-of.ts";
import type { SimulatedNode } from "../../support/simulated-node.ts";
import { shards } from "./protocol-script.ts";

/** A client that knows what was acknowledged, and sends the rest again to the next node. */
export interface ProtocolClient {
  readonly acked: ReadonlySet<number>;
  /** What `processed` said of a batch. */
  readonly processed: ReadonlyMap<number, number>;
  reconnect(): void;
  /** Offers all unacknowledged batches of a range, in order. */
  offer(node: SimulatedNode, from: number, to: number): void;
}

/** A client of the batches; what it sees acknowledged it adds to `acked`. */
export function createClient(
  batches: readonly (readonly CheckedTask[])[],
  acked: Set<number> = new Set(),
): ProtocolClient {
  const processed = new Map<number, number>();
  let previous = new Map<ShardId, number>();
  let resumed = false;
  const listen = (index: number, count: number) => {
    let open = count;
    return (news: Iterable<PartEvent>): void => {
      for (const event of news) {
        if (event.kind === "refused") throw event.error;
        if (event.kind === "durable" && --open === 0) acked.add(index);
        if (event.kind === "processed") processed.set(index, (processed.get(index) ?? 0) + event.obligations);
      }
    };
  };
  return {
    acked,
    processed,
    reconnect: () => {
      previous = new Map();
      resumed = true;
    },
    offer: (node, from, to) => {
      // Acknowledgements are taken in order: what follows a batch without one is sent again with it.
      let index = from;
      while (index < to && acked.has(index)) index++;
      for (; index < to; index++) {
        const parts = partsOf(batches[index] ?? [], index + 1, previous, resumed);
        const listener = listen(index, parts.length);
        node.offer(parts, listener);
      }
    },
  };
}

/** Splits a batch into the parts that a session would offer. */
function partsOf(
  tasks: readonly CheckedTask[],
  number: number,
  previous: Map<ShardId, number>,
  resumed: boolean,
): Part[] {
  const byShard = new Map<ShardId, PartTask[]>();
  for (const each of tasks) {
    const shard = shardOf("entity", each.entity.id, each.eid, shards);
    byShard.set(shard, [...(byShard.get(shard) ?? []), { ...each, cause: null }]);
  }
  return [...byShard].map(([shard, own], position) => {
    const known = previous.get(shard);
    previous.set(shard, number);
    const predecessor = known ?? (resumed ? null : 0);
    return {
      kind: "part",
      position,
      shard,
      channel: "c:test",
      number,
      predecessor,
      hash: `h${number}`,
      tasks: own,
      rejections: [],
      bytes: 100,
    };
  });
}
