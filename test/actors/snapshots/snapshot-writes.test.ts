import { describe, expect, it } from "vitest";
import { createRefreshFlag } from "../../../modules/base-module.ts";
import type { CorrelationHook } from "../../../modules/snapshot-hook.ts";
import { recordAt, specOf } from "../../support/record-at.ts";
import { bodyOf, playTick } from "../../support/snapshot-play.ts";
import { type Door, linkOf, model, play, reads, record, sets } from "./snapshot-script.ts";

describe("what hooks write", () => {
  it("is fully confident unless they say how much, and gone when it is null or undefined", async () => {
    const scope = play(
      (door) => {
        const write: CorrelationHook = (_, values) => {
          values.tags = values.eid === "a" ? ["p", "q"] : ["p"];
          if (values.eid === "b") values["tags#c"] = [0.5];
          if (values.eid === "c") values.tags = null;
          if (values.eid === "d") delete values.tags;
          if (values.eid === "e") values.tags = undefined;
        };
        reads(door, "lone", write, [], [["tags"]]);
      },
      { atMs: 5 },
    );
    const stored = [0.3].map((c) => ({ attr: "tags", v: "old", t1: 0, t2: 10, c }));
    const records = ["a", "b", "c", "d", "e"].map((eid) => recordAt(specOf(model, "lone"), eid, stored));
    expect((await playTick(scope, { lone: records })).bodies.lone).toEqual({
      a: { eid: "a", tags: ["p", "q"], "tags#c": [1, 1] },
      b: { eid: "b", tags: ["p"], "tags#c": [0.5] },
      c: { eid: "c" },
      d: { eid: "d" },
      e: { eid: "e" },
    });
  });

  it("may be a link: it is stored without its record, and followed by later hooks within the component", async () => {
    const scope = play(
      (door) => {
        reads(
          door,
          "route",
          sets("back", (values) => (linkOf(values, "origin") === undefined ? null : { eid: "b" })),
          [["origin", "state"]],
          [["back"], ["note"]],
          "set",
        );
        reads(
          door,
          "route",
          sets("risk", (values) => Number(linkOf(values, "back")?.record?.delay ?? -1)),
          [["back", "delay"]],
          [["risk"]],
          "use",
        );
      },
      { atMs: 5 },
    );
    const origin = { eid: "x" };
    const tick = await playTick(scope, {
      route: [record("route", "a", { origin }), record("route", "b", { origin, delay: 4 })],
      airport: [record("airport", "x")],
    });
    expect(tick.bodies.route).toMatchObject({ a: { back: { eid: "b" }, risk: 4 }, b: { back: { eid: "b" }, risk: 4 } });
  });
});

describe("links that lead nowhere", () => {
  const records = {
    route: [
      record("route", "a", { origin: { eid: "ghost" }, via: [{ eid: "ghost" }, { eid: "x" }] as never, delay: 1 }),
      record("route", "b", { via: [{ eid: "ghost" }] as never }),
    ],
    airport: [record("airport", "x")],
  };
  const register = (door: Door) =>
    reads(
      door,
      "route",
      sets("note", (values) => String(linkOf(values, "origin")?.record)),
      [
        ["origin", "state"],
        ["via", "state"],
      ],
      [["note"]],
    );

  it("stay, without a record; what does not exist has no snapshot", async () => {
    const tick = await playTick(play(register, { atMs: 5 }), records);
    expect(tick.bodies).toMatchObject({
      route: { a: { origin: { eid: "ghost" }, note: "undefined" } },
      airport: { x: {} },
    });
    expect(Object.keys(tick.bodies.airport ?? {})).toEqual(["x"]);
  });

  it("go where `keep_empty` is off: from many values one by one, from a list if nobody is there", async () => {
    const tick = await playTick(play(register, { atMs: 5, keepEmpty: false }), records);
    expect(tick.bodies.route).toEqual({
      a: { eid: "a", via: [[{ eid: "ghost" }, { eid: "x" }]], "via#c": [1], delay: 1, "delay#c": 1, note: "undefined" },
      b: { eid: "b", note: "undefined" },
    });
  });

  it("of types without snapshots lead to records, and these get none (reference 15.1, number 16)", async () => {
    const scope = play((door) =>
      reads(
        door,
        "airport",
        sets("state", (values) => String(linkOf(values, "region")?.record?.name)),
        [["region", "name"]],
        [["state"]],
      ),
    );
    const tick = await playTick(scope, {
      airport: [record("airport", "x", { region: { eid: "n" } })],
      region: [record("region", "n", { name: "North" })],
    });
    expect(tick.bodies).toMatchObject({ airport: { x: { state: "North" } } });
    expect(tick.bodies).not.toHaveProperty("region");
  });
});

describe("hooks with a refresh flag", () => {
  it("run while it is raised, for the current values, with their times; plain values stand in this very run", async () => {
    const flag = createRefreshFlag();
    const calls: unknown[] = [];
    const register = (door: Door) => {
      door.registerOnNewAttrHook(
        (eid, { attr, v, t1, t2, c }, ctx) => {
          calls.push([eid, attr, v, t1, t2, c, ctx.now, ctx.record?.value("x")]);
          return [
            {
              type: "lone",
              eid,
              datapoints: [
                { attr: "y", v: String(v).length },
                { attr: "z", v: 1 },
              ],
            },
          ];
        },
        "lone",
        "tags",
        { name: "derive", refresh: flag, mayChange: [["y"]] },
      );
      door.registerOnEntityCreationHook((eid, { datapoints }) => void calls.push([eid, datapoints]), "lone", {
        ...{ name: "create", refresh: flag, mayChange: [] },
      });
    };
    const stored = [
      { attr: "x", v: 8 },
      { attr: "tags", v: "long", t1: 0, t2: 10, c: 0.5 },
      { attr: "tags", v: "old", t1: -9, t2: -5 },
    ];
    const records = { lone: [recordAt(specOf(model, "lone"), "a", stored), record("lone", "b")] };
    await playTick(play(register, { atMs: 5 }), records);
    expect(calls).toEqual([]);
    flag.raise();
    const tick = await playTick(play(register, { atMs: 5 }), records);
    expect(calls).toEqual([
      ["a", "tags", "long", 0, 10, 0.5, 5, 8],
      ["a", []],
      ["b", []],
    ]);
    expect(bodyOf(tick, "lone", "a")).toEqual({ eid: "a", x: 8, y: 4, tags: ["long"], "tags#c": [0.5] });
    expect(tick.report.get("m/on_new_attr/lone.tags/derive")).toMatchObject({ undeclared: 1, tasks: 1 });
  });
});
