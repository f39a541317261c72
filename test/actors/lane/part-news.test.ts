import { expect, test } from "vitest";
import type { PartEvent } from "../../../actors/lane/part.ts";
import { PartNews } from "../../../actors/lane/part-news.ts";
import { shardId, toEpoch, toSeq } from "../../../proto/ids.ts";
import { StarlingError } from "../../../proto/starling-error.ts";

const owner = { id: shardId("entity", 3), epoch: toEpoch(2) };

test("news come out as events in the order in which they went in, also when there are more than was thought", () => {
  const refused: PartEvent = { kind: "refused", position: 7, error: new StarlingError("BUSY", "no") };
  const owes: PartEvent = { kind: "processed", position: 1, obligations: 4 };
  const news = new PartNews(1);
  news.addPassed(5);
  news.add(refused);
  news.addAppended(0, owner, toSeq(9));
  news.add(owes);
  news.addPassed(2);
  expect(news.length).toBe(5);
  expect([...news]).toEqual([
    { kind: "processed", position: 5, obligations: 0 },
    refused,
    { kind: "durable", position: 0, shard: owner.id, epoch: 2, seq: 9, repeat: false, rejections: [] },
    owes,
    { kind: "processed", position: 2, obligations: 0 },
  ]);
});
