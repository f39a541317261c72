import type { Engine } from "../../actors/engine.ts";
import { type GrpcServer, type GrpcServerOptions, startGrpcServer } from "../../node/grpc/server.ts";
import { testModel } from "./test-model.ts";

/** The model of the edge's tests. */
export const edgeModel = testModel({
  thing: {
    name: { kind: "plain", type: "string" },
    size: { kind: "plain", type: "int" },
    any: { kind: "plain", type: "json" },
  },
});

/** A gRPC server on a free port, over any engine. */
export function startEdge(engine: Engine, rest: Partial<GrpcServerOptions> = {}): Promise<GrpcServer> {
  return startGrpcServer({
    engine,
    model: edgeModel,
    listen: "127.0.0.1:0",
    node: "n1",
    clusterId: "c1",
    version: "0.1.0",
    modules: () => [],
    log: { info: () => {} },
    ...rest,
    limits: { closeGraceMs: 200, ...rest.limits },
  });
}

/** Waits until a condition holds, 10 s at most. */
export async function until(holds: () => boolean, what: string): Promise<void> {
  const end = performance.now() + 10_000;
  while (!holds()) {
    if (performance.now() > end) throw new Error(`never: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}
