import { expect, test } from "vitest";
import { type Part, taskFrom } from "../../../actors/lane/part.ts";
import { writeTail } from "../../../actors/log/line.ts";
import { hex32 } from "../../../actors/log/number-text.ts";
import { readSegment, writeSegment } from "../../../actors/log/segment.ts";
import { shardId, toSeq } from "../../../proto/ids.ts";
import { hashOf } from "../../../proto/shard-of.ts";
import { testModel } from "../../support/test-model.ts";
import { model, task } from "../lane/protocol-script.ts";

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

test("what parts say comes back, whatever characters it holds, and each datapoint has its line", () => {
  const odd = [
    "plain",
    "tab\t, line\n, \\ and \u001e",
    "Zürich",
    "Пекин 😀",
    'say "it"',
    "x".repeat(300),
    "y".repeat(70_000),
  ];
  const datapoint = (src: string | null) => {
    const [first] = task("dst", "e", "seen", 2, 1_767_225_600_001).datapoints;
    if (first === undefined) throw new Error("the task has no datapoint");
    return { ...first, src, c: src === null ? 1 : 0.25 };
  };
  for (const each of odd) {
    const datapoints = [datapoint(each), datapoint(""), datapoint(null)];
    const tasks = [
      { ...taskFrom(task("dst", each, "seen", 2), null), datapoints },
      taskFrom(task("dst", "plain", "late", 1), null),
    ];
    const rejections = [{ index: 1, code: "INVALID_VALUE", message: each }];
    const blocks = [
      partOf({ channel: `c:${each}`, number: 7, predecessor: null, tasks }),
      partOf({ channel: "s:1", number: 2 ** 40, predecessor: 2 ** 40 - 1, tasks: [], rejections }),
    ];
    const segment = writeSegment({ shard, seq: toSeq(9), at: 1000 }, blocks);
    const lines = segment.body.split("\n");
    expect(lines.map((line) => line[0]).join("")).toBe("d++dn");
    expect(datapoints.map(({ line }) => line)).toEqual(datapoints.map(writeTail));
    expect(segment.keys).toBe(tasks.map((one) => hex32(hashOf(one.entity.id, one.eid))).join(""));
    expect(segment.head).toBe(JSON.stringify(JSON.parse(segment.head)));
    const read = readSegment(segment, model);
    expect(read.parts.map((part) => [part.channel, part.number, part.firstSeq, part.lastSeq, part.rejections])).toEqual(
      [
        [`c:${each}`, 7, 9, 12, []],
        ["s:1", 2 ** 40, 13, 13, rejections],
      ],
    );
    const [whole] = read.tasks;
    if (whole === undefined || whole.logged.task instanceof Error) throw new Error("the task does not come back");
    expect(whole.logged.eid).toBe(each);
    expect(whole.logged.task.datapoints).toEqual(datapoints.map((one) => ({ ...one, eid: each })));
  }
});

function partOf(of: Pick<Part, "channel" | "number" | "predecessor" | "tasks"> & Partial<Part>): Part {
  return { kind: "part", position: 0, shard, hash: "0123456789abcdef", rejections: [], bytes: 0, ...of };
}
