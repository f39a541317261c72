import { expect, test } from "vitest";
import { readSegment, writeSegment } from "../../actors/segment.ts";
import { shardId, toSeq } from "../../proto/ids.ts";
import { testModel } from "../support/test-model.ts";
import { model, task } from "./protocol-script.ts";

const shard = shardId("entity", 1);
const target = shardId("entity", 2);

test("derived tasks on their way that no longer fit the model are told, with their place; the others go on (P7)", () => {
  const cause = { shard, seq: toSeq(4), hook: "h", depth: 1 };
  const tasks = [task("dst", "d1", "late", 1), task("dst", "d2", "seen", 2, 5), task("dst", "d3", "late", 3)];
  const derived = tasks.map((each, ordinal) => ({ ...each, cause: { ...cause, ordinal } }));
  const block = {
    kind: "answer",
    cause: cause.seq,
    hook: "h",
    depth: 1,
    own: [],
    others: [{ target, tasks: derived }],
  } as const;
  const segment = writeSegment({ shard, seq: toSeq(9), at: 1000 }, [block]);
  const [whole] = readSegment(segment, model).outbox;
  expect(whole?.tasks.map(({ eid, cause: from }) => [eid, from?.ordinal])).toEqual([
    ["d1", 0],
    ["d2", 1],
    ["d3", 2],
  ]);
  const without = testModel({ src: {}, dst: { seen: { kind: "observations", type: "int" } } });
  const [line] = readSegment(segment, without).outbox;
  expect(line?.tasks.map(({ eid, cause: from }) => [eid, from?.ordinal])).toEqual([["d2", 1]]);
  expect(line?.misfits.map(({ logged, error, cause: from }) => [logged.eid, error.code, from.ordinal])).toEqual([
    ["d1", "MODEL_CHANGED", 0],
    ["d3", "MODEL_CHANGED", 2],
  ]);
});
