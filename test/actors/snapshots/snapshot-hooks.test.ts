import { describe, expect, it } from "vitest";
import type { Value } from "../../../modules/datapoint.ts";
import type { CorrelationHook, LinkedValue, SnapshotContext, SnapshotValues } from "../../../modules/snapshot-hook.ts";
import { createRandom, seedOfRun } from "../../support/random.ts";
import { recordAt, specOf, type Told } from "../../support/record-at.ts";
import { bodyOf, playTick } from "../../support/snapshot-play.ts";
import { type Door, linkOf, linksOf, model, play, reads, record, sets } from "./snapshot-script.ts";

describe("timeseries hooks", () => {
  const chunk = (n: number): Told => ({
    ...{ attr: "flights", v: { time: ["1970-01-01T00:00:01"], n: [n] } },
    ...{ t1: 1000, t2: 1000 },
  });

  it("have their output in the same run, beside what is stored already (reference 15.1, number 2)", async () => {
    const seen: unknown[] = [];
    const scope = play(
      (door) => {
        door.registerTimeseriesHook(
          (type, attr, history, ctx) => {
            seen.push([type, attr, history, ctx.now]);
            return [
              { type: "route", eid: "a", datapoints: [{ attr: "delay", v: 7, t1: 4000, t2: 6000 }] },
              { type: "route", eid: "a", datapoints: [{ attr: "note", v: "derived" }] },
              { type: "route", eid: "other", datapoints: [{ attr: "note", v: "not here" }] },
            ];
          },
          "route",
          "flights",
          { name: "derive" },
        );
        // It sees what timeseries hooks made.
        reads(
          door,
          "route",
          sets("risk", (values) => Number(values.delay) / 10),
          [["delay"]],
          [["risk"]],
        );
      },
      { atMs: 5000 },
    );
    const stored = [{ attr: "note", v: "old" }, { attr: "delay", v: 1, t1: 0, t2: 2000 }, chunk(3)];
    const tick = await playTick(scope, { route: [recordAt(specOf(model, "route"), "a", stored)] });
    expect(bodyOf(tick, "route", "a")).toMatchObject({ delay: 7, "delay#c": 1, note: "derived", risk: 0.7 });
    expect(seen).toMatchObject([["route", "flights", [{ t1: 1000, t2: 1000, v: { n: [3] } }], 5000]]);
    expect(tick.tasks.map(({ hook, type, eid, task }) => [hook, type, eid, task.eid])).toEqual(
      ["a", "a", "other"].map((eid) => ["m/timeseries/route.flights/derive", "route", "a", eid]),
    );
  });

  it("run for entities that have the timeseries only", async () => {
    let calls = 0;
    const scope = play((door) => door.registerTimeseriesHook(() => void calls++, "route", "flights", { name: "h" }));
    const with3 = recordAt(specOf(model, "route"), "b", [chunk(3)]);
    await playTick(scope, { route: [record("route", "a", { note: "x" }), with3] });
    expect(calls).toBe(1);
  });
});

describe("correlation hooks", () => {
  it("run in the order of the graph, each for all entities of its type before the next one begins", async () => {
    const order: string[] = [];
    const scope = play((door) => {
      const note =
        (name: string): CorrelationHook =>
        (_, { eid }) =>
          void order.push(`${name} ${eid}`);
      reads(door, "airport", note("late"), [["departing", "risk"]], [["state"]], "late");
      reads(door, "route", note("early"), [["delay"]], [["risk"]], "early");
    });
    const origin = { eid: "x" };
    await playTick(scope, {
      airport: [record("airport", "x")],
      route: [record("route", "b", { origin }), record("route", "a", { origin })],
    });
    expect(order).toEqual(["early a", "early b", "late x"]);
  });

  it("see what earlier ones wrote, over links and mirrors (reference 15.1, number 13), and nothing of it is stored", async () => {
    const scope = play(
      (door) => {
        reads(
          door,
          "route",
          sets("risk", (values) => Number(values.delay) / 10),
          [["delay"]],
          [["risk"]],
          "a",
        );
        reads(
          door,
          "airport",
          (_, values) => {
            const risks = linksOf(values, "departing").map(({ record: route }) => Number(route?.risk));
            values.load = risks.reduce((sum, risk) => sum + risk, 0);
          },
          [["departing", "risk"]],
          [["load"]],
          "b",
        );
        reads(
          door,
          "route",
          sets("note", (values) => `load ${linkOf(values, "origin")?.record?.load}`),
          [["origin", "load"]],
          [["note"]],
          "c",
        );
      },
      { atMs: 5 },
    );
    const origin = { eid: "x" };
    const tick = await playTick(scope, {
      route: [record("route", "1", { origin, delay: 10 }), record("route", "2", { origin, delay: 20 })],
      airport: [record("airport", "x")],
    });
    expect(tick.bodies).toEqual({
      route: {
        1: { eid: "1", origin, delay: 10, "delay#c": 1, risk: 1, note: "load 3" },
        2: { eid: "2", origin, delay: 20, "delay#c": 1, risk: 2, note: "load 3" },
      },
      airport: { x: { eid: "x", departing: [{ eid: "1" }, { eid: "2" }], load: 3 } },
    });
  });

  it("see records over the links of their own paths, as far as these go", async () => {
    const found: unknown[] = [];
    const scope = play((door) => {
      const look = (): CorrelationHook => (_, values) => {
        const airport = linkOf(values, "origin")?.record;
        const region = airport && linkOf(airport, "region");
        found.push([airport?.eid, region?.eid, region?.record?.name, "record" in (values.via as never)]);
      };
      reads(door, "route", look(), [["origin", "state"]], [], "short");
      reads(door, "route", look(), [["origin", "region", "name"]], [], "long");
      reads(door, "route", look(), [["origin"]], [], "none");
    });
    const via = [[{ eid: "x" }]];
    await playTick(scope, {
      route: [record("route", "r", { origin: { eid: "x" }, via: via[0] as never })],
      airport: [record("airport", "x", { region: { eid: "north" } })],
      region: [record("region", "north", { name: "North" })],
    });
    expect(found).toEqual([
      ["x", "north", undefined, false],
      ["x", "north", "North", false],
      [undefined, undefined, undefined, false],
    ]);
  });

  it("reach links within lists of many values, and write to what they are linked to", async () => {
    const scope = play(
      (door) => {
        reads(
          door,
          "route",
          (_, values) => {
            for (const list of values.via as unknown as LinkedValue[][]) {
              for (const { record: airport } of list) if (airport !== undefined) airport.state = `via ${values.eid}`;
            }
          },
          [["via"]],
          [["via", "state"]],
        );
      },
      { atMs: 5 },
    );
    const tick = await playTick(scope, {
      route: [record("route", "r", { via: [{ eid: "x" }, { eid: "y" }] as never })],
      airport: ["x", "y", "z"].map((eid) => record("airport", eid)),
    });
    expect(tick.bodies.airport).toMatchObject({ x: { state: "via r" }, y: { state: "via r" } });
    expect(tick.bodies.airport?.z).not.toHaveProperty("state");
    expect(tick.bodies.route?.r).toEqual({ eid: "r", via: [[{ eid: "x" }, { eid: "y" }]], "via#c": [1] });
  });

  it("get all that is stored if they ask for the master record, and cannot change it", async () => {
    const got: unknown[] = [];
    const scope = play((door) =>
      door.registerCorrelationHookWithMasterRecord(
        (type, values, master) => {
          got.push(type, values.delay, master);
          expect(() => Object.assign(master, { note: 1 })).toThrow(TypeError);
          values.seen = { points: (master.delay as unknown[]).length };
        },
        "route",
        { name: "hook", dependsOn: [], mayChange: [["seen"]] },
      ),
    );
    const stored = [1, 2].map((v) => ({ attr: "delay", v, t1: v * 100_000, t2: v * 100_000 }));
    const tick = await playTick(scope, { route: [recordAt(specOf(model, "route"), "r", stored)] });
    expect(got).toEqual([
      "route",
      undefined,
      { delay: [100_000, 200_000].map((t, i) => ({ t1: t, t2: t, v: i + 1, c: 1 })) },
    ]);
    expect(tick.report.get("m/correlation_with_master_record/route/hook")?.problems).toEqual([]);
    expect(bodyOf(tick, "route", "r")).toEqual({ eid: "r", seen: { points: 2 } });
  });

  it("know the instant, and a key that is the same whenever the call is repeated", async () => {
    const keys: string[] = [];
    const look = (_: string, __: SnapshotValues, ctx: SnapshotContext) => void keys.push(`${ctx.now} ${ctx.key}`);
    const run = () =>
      playTick(
        play((door) => reads(door, "lone", look, [], []), { atMs: 77 }),
        {
          lone: ["a", "b"].map((eid) => record("lone", eid)),
        },
      );
    await run();
    await run();
    expect(keys.slice(0, 2)).toEqual(["77 3-lone-a-m/correlation/lone/hook", "77 3-lone-b-m/correlation/lone/hook"]);
    expect(keys.slice(2)).toEqual(keys.slice(0, 2));
  });

  it("go over self links and cycles, in which an entity is the same one wherever it is met", async () => {
    const scope = play((door) => {
      const walk: CorrelationHook = (_, values) => {
        const next = linkOf(values, "back")?.record;
        const again = next && linkOf(next, "back")?.record;
        values.note = `${next?.eid} ${again === values}`;
        JSON.stringify(values);
      };
      reads(door, "route", walk, [["back", "back", "delay"]], [["note"]]);
    });
    const tick = await playTick(scope, {
      route: [
        record("route", "self", { back: { eid: "self" } }),
        record("route", "a", { back: { eid: "b" } }),
        record("route", "b", { back: { eid: "a" } }),
      ],
    });
    expect(tick.bodies.route).toMatchObject({
      self: { note: "self true" },
      a: { note: "b true" },
      b: { note: "a true" },
    });
  });
});

describe("the order in which entities come", () => {
  const seed = seedOfRun();

  it(`does not change a body, nor does the size of pages, or which call ends first: seed ${seed}`, async () => {
    const random = createRandom(seed);
    const register = (isAsync: boolean) => (door: Door) => {
      const pause = async () => {
        for (let turns = isAsync ? random.between(0, 5) : 0; turns > 0; turns--) await Promise.resolve();
      };
      const fuse: CorrelationHook = async (_, values) => {
        await pause();
        const origin = linkOf(values, "origin")?.record;
        values.risk = Number(values.delay ?? 0) + Number(origin?.load ?? 0);
        // Several write the same: the last one by key stands.
        if (origin !== undefined) origin.state = `last ${values.eid}`;
      };
      reads(door, "route", fuse, [["delay"], ["origin", "load"]], [["risk"], ["origin", "state"]], "fuse");
      reads(
        door,
        "airport",
        sets("load", (values) => linksOf(values, "departing").length),
        [["departing", "delay"]],
        [["load"]],
        "count",
      );
      reads(
        door,
        "region",
        sets("alarm", () => 1),
        [],
        [["alarm"]],
        "alarm",
      );
      reads(
        door,
        "route",
        async (_, values) => {
          await pause();
          const { state } = linkOf(values, "origin")?.record ?? { eid: "" };
          values.note = `${String(state)} ${JSON.stringify(values.back ?? null)}`;
        },
        [
          ["origin", "state"],
          ["back", "risk"],
        ],
        [["note"]],
        "note",
      );
    };
    const airports = Array.from({ length: 12 }, (_, i) => record("airport", `a${i}`, { region: { eid: `r${i % 3}` } }));
    const routes = Array.from({ length: 60 }, (_, i) => {
      const back: Record<string, Value> = random.next() < 0.4 ? { back: { eid: `t${random.between(0, 70)}` } } : {};
      return record("route", `t${i}`, {
        origin: { eid: `a${random.between(0, 14)}` },
        delay: random.between(0, 60),
        ...back,
      });
    });
    const lones = Array.from({ length: 20 }, (_, i) => record("lone", `l${i}`, { x: i }));
    const results = [];
    for (let order = 0; order < 8; order++) {
      const scope = play(register(order > 0), { atMs: 5 });
      const records = {
        route: random.shuffled(routes),
        lone: random.shuffled(lones),
        airport: random.shuffled(airports),
      };
      const tick = await playTick(scope, records, [1000, 1, 7, 13][order % 4]);
      expect([...tick.report.values()].flatMap(({ problems }) => problems)).toEqual([]);
      results.push([...tick.texts].sort(([a], [b]) => (a < b ? -1 : 1)));
    }
    expect(results[0]).toHaveLength(92);
    for (const result of results) expect(result).toEqual(results[0]);
  });
});
