import { describe, expect, it } from "vitest";
import { type Append, joinAppends } from "../../../actors/store/join-appends.ts";
import type { AppendRequest, WriteResult } from "../../../actors/store/store.ts";
import { type ShardId, shardId, toEpoch, toNodeId, toSeq } from "../../../proto/ids.ts";
import { StarlingError } from "../../../proto/starling-error.ts";

const node = toNodeId("n");
const [one, two, three] = [shardId("entity", 1), shardId("entity", 2), shardId("entity", 3)] as const;

function requestOf(shard: ShardId, datapoints = 10): AppendRequest {
  const places = { shard, seq: toSeq(1), lastSeq: toSeq(datapoints), at: 0 };
  return {
    fences: [{ shard, epoch: toEpoch(1) }],
    segments: [{ ...places, keys: "", head: "", body: "" }],
  };
}

/** Appends that are joined by hand, and what reached the store, as shards. */
function start(answer: (shards: readonly ShardId[]) => WriteResult = () => ({ lost: [] })) {
  const asked: (readonly ShardId[])[] = [];
  const turns: (() => void)[] = [];
  const append: Append = async (_, { fences, segments }) => {
    expect(segments.map(({ shard }) => shard)).toEqual(fences.map(({ shard }) => shard));
    const shards = fences.map(({ shard }) => shard);
    asked.push(shards);
    return answer(shards);
  };
  const joined = joinAppends(append, (run) => turns.push(run));
  const endTurn = (): void => {
    for (const run of turns.splice(0)) run();
  };
  return { joined, asked, endTurn };
}

describe("appends of one turn", () => {
  it("are one transaction, and those of the next one another", async () => {
    const { joined, asked, endTurn } = start();
    const first = Promise.all([joined(node, requestOf(one)), joined(node, requestOf(two))]);
    expect(asked).toEqual([]);
    endTurn();
    expect(await first).toEqual([{ lost: [] }, { lost: [] }]);
    const next = joined(node, requestOf(three));
    endTurn();
    await next;
    expect(asked).toEqual([[one, two], [three]]);
  });

  it("go at once where they are large, and apart where they are another node's", async () => {
    const { joined, asked, endTurn } = start();
    const large = joined(node, requestOf(one, 201));
    expect(asked).toEqual([[one]]);
    const all = [large, joined(node, requestOf(two, 200)), joined(toNodeId("m"), requestOf(three))];
    endTurn();
    await Promise.all(all);
    expect(asked).toEqual([[one], [two], [three]]);
  });

  it("tell who lost shards of these alone, and write the rest without them", async () => {
    const { joined, asked, endTurn } = start((shards) => ({ lost: shards.filter((shard) => shard === two) }));
    const all = [one, two, three].map((shard) => joined(node, requestOf(shard)));
    endTurn();
    expect(await Promise.all(all)).toEqual([{ lost: [] }, { lost: [two] }, { lost: [] }]);
    expect(asked).toEqual([
      [one, two, three],
      [one, three],
    ]);
  });

  it("that are refused for their data are refused one by one", async () => {
    const { joined, asked, endTurn } = start((shards) => {
      if (shards.includes(two)) throw new StarlingError("STORE_REFUSED", "two is bad");
      return { lost: [] };
    });
    const all = Promise.allSettled([joined(node, requestOf(one)), joined(node, requestOf(two))]);
    endTurn();
    expect((await all).map(({ status }) => status)).toEqual(["fulfilled", "rejected"]);
    expect(asked).toEqual([[one, two], [one], [two]]);
  });

  it("of unknown outcome are so for everybody", async () => {
    const { joined, asked, endTurn } = start(() => {
      throw new StarlingError("STORE", "the connection was lost");
    });
    const all = Promise.allSettled([joined(node, requestOf(one)), joined(node, requestOf(two))]);
    endTurn();
    expect((await all).map(({ status }) => status)).toEqual(["rejected", "rejected"]);
    expect(asked).toEqual([[one, two]]);
  });
});
