import { describe, expect, it } from "vitest";
import { type CpuProfile, type ProfileNode, shareProfile } from "./profile-stages.ts";

const dist = "file:///srv/starling/dist/";
const packages = "file:///srv/starling/node_modules/";

/** A call tree: function, file, samples on top, callees. */
type Tree = readonly [name: string, url: string, hits: number, ...callees: Tree[]];

function profileOf(tree: Tree): CpuProfile {
  const nodes: ProfileNode[] = [];
  const add = ([functionName, url, hitCount, ...callees]: Tree): number => {
    const id = nodes.length + 1;
    const children: number[] = [];
    nodes.push({ id, callFrame: { functionName, url }, hitCount, children });
    for (const callee of callees) children.push(add(callee));
    return id;
  };
  add(tree);
  return { nodes };
}

function hitsOf(...callees: Tree[]): Record<string, number> {
  const { hits } = shareProfile(profileOf(["(root)", "", 0, ...callees]));
  return Object.fromEntries([...hits].filter(([, count]) => count > 0));
}

describe("a profile's samples", () => {
  it("belong to the innermost frame that has a rule", () => {
    const check: Tree = ["checkDatapoint", `${dist}modules/check-datapoint.js`, 5, ["regex", "", 2]];
    const split: Tree = ["splitBatch", `${dist}actors/sessions/batch.js`, 3, check];
    expect(hitsOf(["onBatch", `${dist}actors/sessions/stream.js`, 1, split])).toEqual({ route: 4, validate: 7 });
  });

  it("of a shared file belong to who called it", () => {
    const tail: Tree = ["writeTail", `${dist}actors/log/line.js`, 4];
    const built: Tree = ["writeSegment", `${dist}actors/log/segment.js`, 1, tail];
    const applied: Tree = ["applyDatapoint", `${dist}actors/lane/entity.js`, 2, tail];
    const states: Tree = ["writeState", `${dist}actors/lane/entity.js`, 3];
    expect(hitsOf(built, applied, ["startFlush", `${dist}actors/lane/flush.js`, 1, states])).toEqual({
      append: 5,
      process: 6,
      flush: 4,
    });
  });

  it("of one file are told apart by function", () => {
    const url = `${dist}actors/lane/commit.js`;
    const told: Tree = ["tellDurable", `${dist}actors/lane/admission.js`, 2];
    expect(hitsOf(["startCommit", url, 1, ["buildSegment", url, 2]], ["onCommitted", url, 4, told])).toEqual({
      append: 3,
      process: 4,
      acknowledge: 2,
    });
  });

  it("of packages and of the engine have lines of their own", () => {
    const write: Tree = ["writev", "node:internal/stream_base_commons", 1];
    expect(
      hitsOf(
        ["execute", `${packages}postgres/src/connection.js`, 2, write],
        ["onData", `${packages}@grpc/grpc-js/build/src/server.js`, 1],
        ["onSessionRead", "node:internal/http2/core", 1],
        ["(garbage collector)", "", 6],
        ["(program)", "", 5],
        ["(idle)", "", 9],
      ),
    ).toEqual({ client: 3, grpc: 2, gc: 6, native: 5, idle: 9 });
  });

  it("without a rule are other, and their frames are told", () => {
    const profile = profileOf([
      "(root)",
      "",
      0,
      ["listOnTimeout", "node:internal/timers", 2],
      ["step", `${dist}a.js`, 3],
    ]);
    const { hits, others } = shareProfile(profile);
    expect(hits.get("other")).toBe(5);
    expect(others).toEqual([
      { frame: "step a", hits: 3 },
      { frame: "listOnTimeout node:internal/timers", hits: 2 },
    ]);
  });
});
