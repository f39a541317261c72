import { expect, test } from "vitest";
import { withFreshReads } from "../../actors/fresh-reads.ts";
import type { MessageResult } from "../../actors/lane/message-result.ts";
import type { LocalEngine } from "../../actors/local-engine.ts";
import { shardId, toSeq } from "../../proto/ids.ts";

const result: MessageResult = { kind: "change", state: null, reply: "1" };
const shard = shardId("entity", 0);

/** An owner whose freshness is at hand, and whose reads end when they are let go. */
function startOwner() {
  let fresh = true;
  let letGo = (): void => {};
  const held = new Promise<void>((resolve) => {
    letGo = resolve;
  });
  const reads = withFreshReads<Pick<LocalEngine, "get" | "reply">>(
    { get: () => held.then(() => null), reply: () => held.then(() => result) },
    () => fresh,
  );
  const stale = () => {
    fresh = false;
  };
  const both = () => [reads.get("thing", "a", null), reads.reply(shard, toSeq(1), 1000)];
  return { stale, letGo: () => letGo(), both };
}

const refused = { status: "rejected", reason: expect.objectContaining({ code: "UNAVAILABLE" }) };

test("an owner answers reads while it knows what it owns, and none when it does not (R24)", async () => {
  const owner = startOwner();
  owner.letGo();
  expect(await Promise.allSettled(owner.both())).toMatchObject([{ value: null }, { value: result }]);
  owner.stale();
  expect(await Promise.allSettled(owner.both())).toEqual([refused, refused]);
});

test("a read that ends when its owner no longer knows is not answered either: it may have stood still meanwhile (R24)", async () => {
  const owner = startOwner();
  const asked = owner.both();
  owner.stale();
  owner.letGo();
  expect(await Promise.allSettled(asked)).toEqual([refused, refused]);
});
