import { expect, test } from "vitest";
import { createReadiness, type NodePhase } from "../../../node/http/readiness.ts";
import { StarlingError } from "../../../proto/starling-error.ts";
import { createFakeEngine } from "../../support/fake-engine.ts";
import { createManualClock } from "../../support/manual-clock.ts";

type Parts = Extract<NodePhase, { kind: "serving" }>["parts"];

function serve({ state = "serving", ping = async () => {} }: { state?: string; ping?: () => Promise<void> } = {}) {
  const clock = createManualClock();
  const engine = createFakeEngine();
  const membership = { self: { state } } as Parts["membership"];
  let phase: NodePhase = { kind: "serving", parts: { engine, membership, ping } };
  const findProblem = createReadiness(() => phase, clock);
  const leave = (): void => {
    phase = { kind: "leaving" };
  };
  return { clock, engine, findProblem, leave };
}

test("a node that serves is ready", async () => {
  expect(await serve().findProblem()).toBeNull();
});

test("one that starts, leaves, ails or does not serve says which", async () => {
  const starting = createReadiness(() => ({ kind: "starting" }), createManualClock());
  expect(await starting()).toBe("the node is starting");
  expect(await serve({ state: "ailing" }).findProblem()).toBe("the node is ailing");
  const { engine, findProblem, leave } = serve();
  engine.setProblem(new StarlingError("STORE", "connection refused"));
  expect(await findProblem()).toBe("STORE: connection refused");
  leave();
  expect(await findProblem()).toBe("the node is leaving");
});

test("a database that refuses or stays silent is named, and asked once at a time", async () => {
  const refused = serve({ ping: () => Promise.reject(new StarlingError("STORE", "no such host")) });
  expect(await refused.findProblem()).toBe("STORE: no such host");
  let asked = 0;
  const ping = (): Promise<void> => {
    asked++;
    return new Promise(() => {});
  };
  const silent = serve({ ping });
  const answers = [silent.findProblem(), silent.findProblem()];
  await silent.clock.advance(1_000);
  expect(await Promise.all(answers)).toEqual(Array(2).fill("DEADLINE: PostgreSQL did not answer within 1000 ms"));
  expect(asked).toBe(1);
});
