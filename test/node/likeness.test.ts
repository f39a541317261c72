import { expect, test } from "vitest";
import type { NodeRecord } from "../../cluster/membership/membership.ts";
import { checkLikeness, describeLikeness, type Likeness } from "../../node/likeness.ts";
import { toNodeId } from "../../proto/ids.ts";
import { testModel } from "../support/test-model.ts";

const model = testModel({ thing: { level: { kind: "plain", type: "int" } } });

function likenessOf(sources: string, config: unknown, enabled: readonly string[] = ["flights"]): Likeness {
  const modules = enabled.map((name) => ({
    name,
    file: "",
    hash: `${sources}${"0".repeat(20)}`,
    bundle: "",
    instances: [],
  }));
  return describeLikeness({ model, moduleConfigs: new Map([["flights", config]]) }, { modules });
}

function recordOf({ hash, parts }: Likeness): NodeRecord {
  const about = { id: toNodeId("b"), name: "bob", address: "h:1", version: "1", protocolMin: 1, protocolMax: 1 };
  return { ...about, state: "serving", modelHash: hash, parts };
}

test("nodes with the same model, modules and configuration are alike", () => {
  expect(() => checkLikeness(likenessOf("a", { x: 1 }), [recordOf(likenessOf("a", { x: 1 }))])).not.toThrow();
});

test("a node that differs is refused with every difference and the remedy", () => {
  const own = likenessOf("a", { x: 1 });
  expect(() => checkLikeness(own, [recordOf(likenessOf("b", { x: 1 }))])).toThrow(
    /^node bob at h:1 differs from this one in module flights: .*`rolling`/,
  );
  expect(() => checkLikeness(own, [recordOf(likenessOf("b", { x: 2 }, ["flights", "more"]))])).toThrow(
    /in module flights, the configuration of module flights, module more, the configuration of module more:/,
  );
  const [one, other] = [likenessOf("a", {}, ["p", "q"]), likenessOf("a", {}, ["q", "p"])];
  expect(() => checkLikeness(one, [recordOf(other)])).toThrow(/in the order of the modules:/);
});
