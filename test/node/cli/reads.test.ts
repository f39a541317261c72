import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { GrpcServer } from "../../../node/grpc/server.ts";
import { createFakeEngine, createFakeWorld, type FakeWorld } from "../../support/fake-engine.ts";
import { startEdge } from "../../support/grpc-edge.ts";
import { run } from "./terminal.ts";

let world: FakeWorld;
let server: GrpcServer;
beforeEach(async () => {
  world = createFakeWorld();
  server = await startEdge(createFakeEngine(world));
});
afterEach(() => server.close());

const starling = (...args: string[]) => run(args, { env: { STARLING_ADDRESS: server.address } });

describe("a command that only asks, or decides about dead letters, opens no session", () => {
  it.each([
    ["status", 0],
    ["modules", 0],
    ["entity get thing a", 1],
    ["entity list thing", 0],
    ["entity count", 0],
    ["raw thing a", 0],
    ["dead-letter list", 0],
    ["dead-letter show 1-2-3", 1],
    ["dead-letter replay 1-2-3", 1],
    ["dead-letter discard 1-2-3", 1],
  ])("starling %s", async (line, code) => {
    const ran = await starling(...line.split(" "));
    expect(ran.code).toBe(code);
    if (code === 1) expect(ran.err).toMatch(/^starling: NOT_FOUND: /);
    expect(world.sessions.size).toBe(0);
  });

  it("and those that change one entity share the node's own", async () => {
    for (const line of ["entity set thing a name new", "entity set thing b name new", "entity delete thing a"]) {
      expect((await starling(...line.split(" "))).code).toBe(0);
    }
    expect(world.sessions.size).toBe(1);
  });

  it("and send does", async () => {
    const point = JSON.stringify({ type: "thing", eid: "a", attr: "name", v: "x" });
    await run(["send", "-"], { env: { STARLING_ADDRESS: server.address }, stdin: point });
    expect(world.sessions.size).toBe(1);
  });
});

it("an address where no node answers is named, with the reason and a remedy", async () => {
  const { code, err } = await run(["status", "--address", "127.0.0.1:1"]);
  expect(code).toBe(1);
  expect(err).toMatch(
    /^starling: UNAVAILABLE: no node answered: 127\.0\.0\.1:1: .*ECONNREFUSED.*\n {2}→ is a node running/,
  );
});
