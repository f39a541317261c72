import { describe, expect, it } from "vitest";
import { entityKey, readEntityAt, writeBody } from "../../../actors/history/entity-at.ts";
import { createLinkGraph } from "../../../actors/snapshots/snapshot-component.ts";
import { pairsOf, planSnapshotLinks, type SnapshotLinks, setMirrors } from "../../../actors/snapshots/snapshot-link.ts";
import { createRegistrar } from "../../../modules/registrar.ts";
import type { AttributePaths } from "../../../modules/snapshot-hook.ts";
import { configModel } from "../../support/config-model.ts";
import { createRandom, seedOfRun } from "../../support/random.ts";
import { specOf } from "../../support/record-at.ts";

const model = configModel({
  a: { b: "plain link<b>", more: "observations array<link<b>>; multi_value: true", x: "plain int" },
  b: { c: "plain link<c; mirror=bs>", self: "plain link<b>", x: "plain int" },
  c: { x: "plain int" },
  alone: { x: "plain int", c: "plain link<c>" },
});
const log = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };

/** Hooks that read these paths, by type. */
function linksOf(paths: Readonly<Record<string, AttributePaths>>): SnapshotLinks {
  const registrar = createRegistrar(model, { concurrency: 1, timeoutMs: 1000, retries: 0 });
  const door = registrar.forModule("m", log, () => ({}));
  for (const [type, dependsOn] of Object.entries(paths)) {
    door.registerCorrelationHook(() => null, type, { name: "read", dependsOn, mayChange: [] });
  }
  return planSnapshotLinks(model, registrar.hookTable().snapshot ?? { correlation: [] });
}

const entity = (type: string, eid: string, values: object) =>
  readEntityAt(specOf(model, type), eid, JSON.stringify({ eid, ...values }));

describe("the links of a snapshot run", () => {
  it("are those that hooks go over, and those that mirrors show; who has neither is computed alone", () => {
    const links = linksOf({ a: [["b", "x"], ["x"]] });
    expect(links.list).toEqual([
      { type: "a", attr: "b", target: "b", mirror: null, connects: true },
      { type: "b", attr: "c", target: "c", mirror: "bs", connects: false },
    ]);
    expect([...links.types]).toEqual(["a", "b", "c"]);
    expect(linksOf({ c: [["bs", "x"]] }).list).toMatchObject([{ type: "b", attr: "c", connects: true }]);
  });

  it("lead to every target of a value, in lists of lists as well", () => {
    const links = linksOf({
      a: [
        ["b", "x"],
        ["more", "x"],
      ],
    });
    const pairs = pairsOf(
      model,
      links,
      entity("a", "1", { b: { eid: "x" }, more: [[{ eid: "y" }, { eid: "z" }], [{ eid: "y" }]] }),
    );
    expect(pairs.map(({ to }) => to).sort()).toEqual(["b\tx", "b\ty", "b\tz"]);
  });
});

describe("components", () => {
  const links = linksOf({ a: [["b", "c", "x"]], b: [["self", "x"]] });
  const graphOf = (pairs: readonly (readonly [string, string, string])[]) => {
    const graph = createLinkGraph(links);
    for (const [from, attr, to] of pairs) {
      const link = links.list.findIndex((one) => `${one.type}.${one.attr}` === `${from.split("\t")[0]}.${attr}`);
      graph.add({ from, link, to });
    }
    return graph;
  };

  it("hold whole chains over several types, whatever the order (reference 15.1, number 1)", () => {
    const chains = Array.from({ length: 12 }, (_, i) => [
      [`a\t${i}`, "b", `b\t${i}`] as const,
      [`b\t${i}`, "c", `c\t${i}`] as const,
    ]).flat();
    const { shuffled } = createRandom(1);
    for (let order = 0; order < 20; order++) {
      const components = graphOf(shuffled(chains)).components();
      expect(components).toHaveLength(12);
      for (const component of components) expect(component.map((key) => key[0])).toEqual(["a", "b", "c"]);
    }
  });

  it("end with self links, cycles, and links to what does not exist", () => {
    const graph = graphOf([
      ["b\t1", "self", "b\t1"],
      ["b\t2", "self", "b\t3"],
      ["b\t3", "self", "b\t2"],
      ["a\t1", "b", "b\tghost"],
    ]);
    expect(graph.components()).toEqual([["a\t1", "b\tghost"], ["b\t1"], ["b\t2", "b\t3"]]);
  });

  it("are those of a search that goes from entity to entity, for any graph", () => {
    const seed = seedOfRun();
    const { between } = createRandom(seed);
    const pairs = Array.from({ length: 400 }, () => {
      const [from, to] = [between(0, 300), between(0, 300)];
      return [`b\t${from}`, "self", `b\t${to}`] as const;
    });
    const near = new Map<string, string[]>();
    for (const [from, , to] of pairs) {
      near.set(from, [...(near.get(from) ?? []), to]);
      near.set(to, [...(near.get(to) ?? []), from]);
    }
    const wanted = new Set(
      [...near.keys()].map((start) => {
        const reached = new Set([start]);
        for (const one of reached) for (const next of near.get(one) ?? []) reached.add(next);
        return [...reached].sort().join();
      }),
    );
    expect(
      new Set(
        graphOf(pairs)
          .components()
          .map((keys) => keys.join()),
      ),
      `seed ${seed}`,
    ).toEqual(wanted);
  });

  it("of a long chain are found without recursion", () => {
    const graph = createLinkGraph(links);
    const link = links.list.findIndex(({ attr }) => attr === "self");
    for (let i = 0; i < 300_000; i++)
      graph.add({ from: entityKey("b", String(i)), link, to: entityKey("b", String(i + 1)) });
    expect(graph.components().map(({ length }) => length)).toEqual([300_001]);
  }, 60_000);

  it("are refused with a code above the bound", () => {
    const graph = createLinkGraph(links, { keysMax: 3, pairsMax: 2 });
    const link = 0;
    graph.add({ from: "b\t1", link, to: "b\t2" });
    expect(() => graph.add({ from: "b\t3", link, to: "b\t4" })).toThrow("more than 3 entities");
    graph.add({ from: "b\t1", link, to: "b\t1" });
    expect(() => graph.add({ from: "b\t1", link, to: "b\t1" })).toThrow("more than 2 links");
  });

  it("tell a mirror its sources, also where no hook goes over it; it is empty if there are none", () => {
    const mirrors = linksOf({});
    const graph = createLinkGraph(mirrors);
    for (const eid of ["2", "1"])
      for (const pair of pairsOf(model, mirrors, entity("b", eid, { c: { eid: "t" } }))) graph.add(pair);
    expect(graph.components()).toEqual([]);
    const shown = ["t", "other"].map((eid) => {
      const one = entity("c", eid, {});
      setMirrors(model, one, graph.sourcesOf(entityKey("c", eid)));
      return writeBody(one);
    });
    expect(shown).toEqual(['{"eid":"t","bs":[{"eid":"1"},{"eid":"2"}]}', '{"eid":"other","bs":[]}']);
  });
});
