import { describe, expect, it } from "vitest";
import {
  changeMark,
  type EntityAt,
  keyOf,
  readEntityAt,
  type SnapshotTexts,
  writeEntityAt,
} from "../../../actors/history/entity-at.ts";
import type { HookYield } from "../../../actors/snapshots/snapshot-call.ts";
import { createLinkGraph } from "../../../actors/snapshots/snapshot-component.ts";
import { computeSnapshots, computeValues, type SnapshotScope } from "../../../actors/snapshots/snapshot-hooks.ts";
import { pairsOf, setMirrors } from "../../../actors/snapshots/snapshot-link.ts";
import { computeSpilled } from "../../../actors/snapshots/snapshot-spill.ts";
import type { RecordAt } from "../../../actors/snapshots/snapshot-values.ts";
import type { Value } from "../../../modules/datapoint.ts";
import type { CorrelationHook } from "../../../modules/snapshot-hook.ts";
import { createRandom, type Random, seedOfRun } from "../../support/random.ts";
import { specOf } from "../../support/record-at.ts";
import { type Door, linkOf, linksOf, model, play, reads, record } from "./snapshot-script.ts";

/** Hooks over two levels, there and back: routes from delays, airports from routes, routes and regions from airports. */
function register(door: Door): void {
  const risk: CorrelationHook = (_, values) => {
    values.risk = Number(values.delay ?? 0) / 10;
    // Seen by nobody of this very hook, though it could look.
    values.seen = { before: String(linkOf(values, "back")?.record?.risk) };
  };
  reads(door, "route", risk, [["delay"], ["back", "delay"]], [["risk"], ["seen"]], "risk");
  const load: CorrelationHook = (type, values) => {
    const risks = linksOf(values, "departing").map(({ record: route }) => Number(route?.risk ?? 0));
    values.load = Math.round(risks.reduce((sum, one) => sum + one, 0));
    const region = linkOf(values, "region")?.record;
    // Several airports say something; the last one by key is heard.
    if (region !== undefined) Object.assign(region, { alarm: values.load, name: `${String(values.eid)} undeclared` });
    return [{ type, eid: values.eid, datapoints: [{ attr: "load", v: values.load as number }] }];
  };
  reads(door, "airport", load, [["departing", "risk"]], [["load"], ["region", "alarm"]], "load");
  const note: CorrelationHook = (_, values) => {
    const origin = linkOf(values, "origin")?.record;
    const region = origin && linkOf(origin, "region")?.record;
    values.note = `${String(origin?.load)} ${String(region?.alarm)} ${String(linkOf(values, "back")?.record?.risk)}`;
    if (values.eid === "r3") throw new Error("not this one");
  };
  const dependsOn = [
    ["origin", "load"],
    ["origin", "region", "alarm"],
    ["back", "risk"],
  ];
  reads(door, "route", note, dependsOn, [["note"]], "note");
}

function drawRecords({ between, next }: Random): Readonly<Record<string, readonly RecordAt[]>> {
  const region = (): Record<string, Value> => (next() < 0.9 ? { region: { eid: `n${between(0, 3)}` } } : {});
  const back = (): Record<string, Value> => (next() < 0.5 ? { back: { eid: `r${between(0, 80)}` } } : {});
  return {
    region: Array.from({ length: 3 }, (_, i) => record("region", `n${i}`, { name: `north ${i}` })),
    airport: Array.from({ length: 10 }, (_, i) => record("airport", `a${i}`, region())),
    route: Array.from({ length: 60 }, (_, i) =>
      record("route", `r${i}`, { origin: { eid: `a${between(0, 11)}` }, delay: between(0, 90), ...back() }),
    ),
  };
}

interface Linked {
  readonly texts: ReadonlyMap<string, string>;
  readonly keys: readonly string[];
  readonly sourcesOf: (key: string) => ReadonlyMap<string, readonly string[]>;
}

/** The linked entities of a tick as texts. They are computed as one, whether they hang together or not. */
async function readLinked(scope: SnapshotScope, records: ReturnType<typeof drawRecords>): Promise<Linked> {
  const graph = createLinkGraph(scope.links);
  const texts = new Map<string, string>();
  for (const [type, all] of Object.entries(records)) {
    for (const entity of (await computeValues(scope, specOf(model, type), all)).entities) {
      texts.set(keyOf(entity), writeEntityAt(entity));
      for (const pair of pairsOf(model, scope.links, entity)) graph.add(pair);
    }
  }
  return { texts, keys: [...texts.keys(), "airport\tghost"].sort(), sourcesOf: graph.sourcesOf };
}

function readText(key: string, text: string): EntityAt {
  const [type = "", eid = ""] = key.split("\t");
  return readEntityAt(specOf(model, type), eid, text);
}

function computeWhole(scope: SnapshotScope, { texts, sourcesOf }: Linked) {
  const entities = [...texts].map(([key, text]) => {
    const entity = readText(key, text);
    setMirrors(model, entity, sourcesOf(key));
    return entity;
  });
  return computeSnapshots(scope, entities);
}

describe("a component larger than memory", () => {
  const seed = seedOfRun();

  it.each([true, false])(
    `has the bodies of one that fits (links to nobody stay: %s; seed ${seed})`,
    async (keepEmpty) => {
      const random = createRandom(seed);
      for (let draw = 0; draw < 4; draw++) {
        const scope = play(register, { atMs: 5, keepEmpty });
        const linked = await readLinked(scope, drawRecords(random));
        const whole = await computeWhole(scope, linked);
        const stored = new Map(linked.texts);
        let most = 0;
        const bodies = new Map<string, SnapshotTexts>();
        const spilled = await computeSpilled(scope, linked.keys, {
          ...{ attempt: "one", bytesMax: 12_000, sourcesOf: linked.sourcesOf },
          spill: {
            read: async (keys) => {
              most = Math.max(most, keys.length);
              return keys.map((key) => stored.get(key) ?? null);
            },
            write: async (all) => {
              for (const { key, changes } of all) stored.set(key, `${stored.get(key)?.split(changeMark)[0]}${changes}`);
            },
          },
          onBodies: async (more) => {
            for (const [key, body] of more) bodies.set(key, body);
          },
        });
        expect(bodies).toEqual(whole.bodies);
        expect(tellOf(spilled)).toEqual(tellOf(whole));
        expect(most).toBeLessThan(linked.keys.length);
        expect(spilled.report.get("m/correlation/route/note")).toMatchObject({ calls: 60, failures: 1 });
      }
    },
  );

  it("begins anew where an attempt has died, whatever that has written", async () => {
    const scope = play(register, { atMs: 5 });
    const linked = await readLinked(scope, drawRecords(createRandom(7)));
    const whole = await computeWhole(scope, linked);
    const stored = new Map(linked.texts);
    for (const [attempt, writesMax] of [
      ["one", 5],
      ["two", 9],
      ["three", 1_000],
    ] as const) {
      const bodies = new Map<string, SnapshotTexts>();
      let writes = 0;
      const computing = computeSpilled(scope, linked.keys, {
        ...{ attempt, bytesMax: 12_000, sourcesOf: linked.sourcesOf },
        spill: {
          read: async (keys) => keys.map((key) => stored.get(key) ?? null),
          write: async (all) => {
            if (++writes > writesMax) throw new Error("the node is dead");
            for (const { key, changes } of all) stored.set(key, `${stored.get(key)?.split(changeMark)[0]}${changes}`);
          },
        },
        onBodies: async (more) => {
          for (const [key, body] of more) bodies.set(key, body);
        },
      });
      if (attempt !== "three") await expect(computing).rejects.toThrow("the node is dead");
      else {
        await computing;
        expect(bodies).toEqual(whole.bodies);
        // What attempts leave behind is not seen by who reads an entity alone.
        for (const [key, text] of stored)
          expect(readText(key, text)).toEqual(readText(key, linked.texts.get(key) ?? ""));
      }
    }
  });

  it("is refused with a code where one entity alone reaches too much", async () => {
    const scope = play(register, { atMs: 5 });
    const linked = await readLinked(scope, drawRecords(createRandom(7)));
    const computing = computeSpilled(scope, linked.keys, {
      ...{ attempt: "one", bytesMax: 900, sourcesOf: linked.sourcesOf },
      spill: { read: async (keys) => keys.map((key) => linked.texts.get(key) ?? null), write: async () => {} },
      onBodies: async () => {},
    });
    await expect(computing).rejects.toMatchObject({ code: "TOO_LARGE", message: expect.stringContaining("hook m/") });
  });
});

/** What hooks did, without durations. */
function tellOf({ tasks, report }: HookYield) {
  const hooks = [...report].map(([hook, { ms: _, problems, ...counts }]) => [hook, counts, problems]);
  return {
    hooks,
    tasks: tasks.map(({ hook, type, eid, task }) => [hook, type, eid, task.datapoints.map(({ json }) => json)]),
  };
}
