import { expect, it } from "vitest";
import type { AttemptMark, Queries, Store, StoredObligation } from "../../../actors/store/store.ts";
import { type ShardId, toSeq } from "../../../proto/ids.ts";
import { fencesOf, flushOf, letterOf, nodeA, nodeB, noon, progressOf, shard1, shard2 } from "./samples.ts";

function obligationOf(seq: number | null, waiting: number | null, eid = "a\x1f\tb"): StoredObligation {
  const at = { at: noon, hook: "m/on_new_attr/ip.port/f", place: '["attributes",1,0]', task: "d\tip\ta\n+\tip\ta" };
  const held = seq === null ? null : { seq: toSeq(seq), lastSeq: toSeq(seq + 1), ...at };
  return { shard: shard1, type: "ip", eid, held, firstWaiting: waiting === null ? null : toSeq(waiting) };
}

/** What every store holds of obligations (R16) and attempt marks (R17). */
export function describeObligations(current: () => Store & Queries): void {
  const own = async (...shards: ShardId[]) => fencesOf(await current().acquire(nodeA, shards));

  it("hands obligations to the next owner, the oldest first, as the last flush left them", async () => {
    const store = current();
    const fences = await own(shard1, shard2);
    const first = [obligationOf(7, null), obligationOf(3, null, "c"), obligationOf(4, 6, "d")];
    await store.flush(nodeA, flushOf(fences, { obligations: first }));
    const next = [obligationOf(null, 9), obligationOf(null, null, "c")];
    await store.flush(nodeA, flushOf(fences, { obligations: next }));
    const [acquired, other] = await store.acquire(nodeB, [shard1, shard2]);
    expect(acquired?.obligations).toEqual([obligationOf(4, 6, "d"), obligationOf(null, 9)]);
    expect(other?.obligations).toEqual([]);
  });

  it("tells the next owner what was refused and is a dead letter from the first obligation on", async () => {
    const store = current();
    const fences = await own(shard1);
    const refused = [3, 5].map((seq) => ({ shard: shard1, type: "ip", eid: "a", seq: toSeq(seq) }));
    const deadLetters = [letterOf(3, { hook: "old" }), letterOf(4, { hook: "h" })];
    const obligations = [obligationOf(null, 4)];
    await store.flush(nodeA, flushOf(fences, { refused, deadLetters, obligations, progress: [progressOf(8)] }));
    const [acquired] = await store.acquire(nodeB, [shard1]);
    expect(acquired?.refused).toEqual([5]);
    expect(acquired?.deadAnswers).toEqual([{ seq: 4, hook: "h" }]);
  });

  it("knows whether the owner before gave a shard up, and which window it was in", async () => {
    const store = current();
    const mark: AttemptMark = { from: toSeq(3), to: toSeq(5), until: toSeq(9), deaths: 0 };
    const fences = await own(shard1, shard2);
    await store.flush(nodeA, flushOf(fences, { attempts: fences.map(({ shard }) => ({ shard, mark })) }));
    await store.flush(nodeA, flushOf(fences, { attempts: [{ shard: shard2, mark: null }] }));
    await store.release(fences.slice(1), nodeA);
    const acquired = await store.acquire(nodeB, [shard1, shard2]);
    expect(acquired.map(({ clean, attempt }) => [clean, attempt])).toEqual([
      [false, mark],
      [true, null],
    ]);
    const empty: AttemptMark = { from: toSeq(1), to: toSeq(0), until: toSeq(9), deaths: 2 };
    await store.flush(nodeB, flushOf(fencesOf(acquired), { attempts: [{ shard: shard1, mark: empty }] }));
    const [next] = await store.acquire(nodeA, [shard1]);
    expect(next?.attempt).toEqual(empty);
  });
}
