import { describe, expect, it } from "vitest";
import { type GraphHook, planHookOrder } from "../../modules/hook-graph.ts";
import { createRandom } from "../support/random.ts";

function hook(id: string, reads: readonly string[], changes: readonly string[]): GraphHook {
  return { id, reads, changes };
}

function idsInOrder(hooks: readonly GraphHook[]): readonly string[] {
  const planned = planHookOrder(hooks);
  if (planned.kind === "cycle") throw new Error(planned.cycle.join(" → "));
  return planned.order.map((place) => hooks[place]?.id ?? "");
}

describe("the order of hooks", () => {
  it("puts a hook behind all that may change what it reads, and leaves the rest as registered", () => {
    const hooks = [
      hook("risk", ["airport.state", "route.delays"], ["route.risk"]),
      hook("other", [], []),
      hook("state", ["route.delays"], ["airport.state"]),
      hook("delays", [], ["route.delays"]),
    ];
    expect(idsInOrder(hooks)).toEqual(["other", "delays", "state", "risk"]);
  });

  it("keeps two hooks that change the same attribute as registered, both before its reader", () => {
    const hooks = [hook("reader", ["a.x"], []), hook("second", [], ["a.x"]), hook("first", [], ["a.x"])];
    expect(idsInOrder(hooks)).toEqual(["second", "first", "reader"]);
  });

  it("names the whole of a shortest cycle", () => {
    const hooks = [
      hook("aside", [], ["a.x"]),
      hook("one", ["a.z", "a.x"], ["a.y"]),
      hook("two", ["a.y"], ["b.q", "a.w"]),
      hook("three", ["a.w"], ["a.z"]),
    ];
    const cycle = ["one", "a.y", "two", "a.w", "three", "a.z", "one"];
    expect(planHookOrder(hooks)).toEqual({ kind: "cycle", cycle });
    expect(planHookOrder([hook("self", ["a.x"], ["a.x"])])).toEqual({ kind: "cycle", cycle: ["self", "a.x", "self"] });
  });

  it("is topological and the same every time, for any graph; where there is none, the cycle that it names exists", () => {
    const seen = { ordered: 0, cycle: 0 };
    for (let seed = 1; seed <= 500; seed++) {
      const hooks = randomHooks(seed);
      const planned = planHookOrder(hooks);
      seen[planned.kind]++;
      expect(planHookOrder(hooks), `seed ${seed}`).toEqual(planned);
      const wrong =
        planned.kind === "ordered" ? orderProblems(hooks, planned.order) : cycleProblems(hooks, planned.cycle);
      expect(wrong, `seed ${seed}`).toEqual([]);
    }
    expect(Math.min(seen.ordered, seen.cycle)).toBeGreaterThan(50);
  });
});

function randomHooks(seed: number): readonly GraphHook[] {
  const { next, between } = createRandom(seed);
  const attributes = Array.from({ length: between(2, 21) }, (_, i) => `t${i % 3}.a${i}`);
  const some = () => attributes.filter(() => next() < 1.2 / attributes.length);
  return Array.from({ length: between(1, 12) }, (_, i) => hook(`h${i}`, some(), some()));
}

/** Every place once, every dependency before its dependent, and nobody overtaken without need. */
function orderProblems(hooks: readonly GraphHook[], order: readonly number[]): string[] {
  const problems: string[] = [];
  if ([...order].sort((a, b) => a - b).join() !== [...hooks.keys()].join()) problems.push("not every hook once");
  const waitsFor = (later: number, earlier: number) =>
    hooks[earlier]?.changes.some((attribute) => hooks[later]?.reads.includes(attribute)) ?? false;
  for (const [at, place] of order.entries()) {
    const rest = order.slice(at + 1);
    for (const later of rest) if (waitsFor(place, later)) problems.push(`h${place} runs before h${later}`);
    const ready = rest.filter((other) => !order.slice(at).some((before) => waitsFor(other, before)));
    if (ready.some((other) => other < place)) problems.push(`h${place} overtakes without need`);
  }
  return problems;
}

function cycleProblems(hooks: readonly GraphHook[], cycle: readonly string[]): string[] {
  const problems: string[] = [];
  const byId = new Map(hooks.map((one) => [one.id, one]));
  if (cycle.length < 3 || cycle[0] !== cycle.at(-1)) problems.push("no cycle");
  for (let at = 0; at + 2 < cycle.length; at += 2) {
    const [from = "", attribute = "", to = ""] = cycle.slice(at, at + 3);
    if (!byId.get(from)?.changes.includes(attribute)) problems.push(`${from} does not change ${attribute}`);
    if (!byId.get(to)?.reads.includes(attribute)) problems.push(`${to} does not read ${attribute}`);
  }
  return problems;
}
