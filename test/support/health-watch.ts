import { callStream, dial } from "../../proto/client-call.ts";
import { Health, HealthCheckResponse_ServingStatus as Serving } from "../../proto/gen/grpc/health_pb.ts";

/** What a node's standard health service says, as it says it. */
export interface HealthWatch {
  /** Every status so far, in order. */
  readonly seen: readonly ("serving" | "not serving")[];
  close(): Promise<void>;
}

/** Starts watching, as a load balancer does. */
export function watchHealth(address: string): HealthWatch {
  const dialled = dial(address);
  const stop = new AbortController();
  const seen: ("serving" | "not serving")[] = [];
  const watching = (async () => {
    for await (const { status } of callStream(dialled, Health.method.watch, {}, stop.signal)) {
      seen.push(status === Serving.SERVING ? "serving" : "not serving");
    }
  })().catch(() => {}); // the node is gone
  return {
    seen,
    close: async () => {
      stop.abort();
      await watching;
      dialled.grpc.close();
    },
  };
}
