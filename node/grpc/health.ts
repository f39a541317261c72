import type { Engine } from "../../actors/engine.ts";
import type { Health } from "../../proto/gen/grpc/health_pb.ts";
import { HealthCheckResponse_ServingStatus as Serving } from "../../proto/gen/grpc/health_pb.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import type { Handlers } from "./service.ts";

/** The standard health service: SERVING follows the engine, for the empty name and for every name it knows. */
export class HealthService {
  readonly handlers: Handlers<typeof Health> = {
    check: async ({ message }) => {
      const status = this.#statusOf(message.service);
      if (status === Serving.SERVICE_UNKNOWN) throw new StarlingError("NOT_FOUND", `no service ${message.service}`);
      return { status };
    },
    watch: ({ message }, context) => this.#watch(message.service, context.signal),
  };
  readonly #known: ReadonlySet<string>;
  readonly #listeners = new Set<() => void>();
  readonly #unsubscribe: () => void;
  #status: "serving" | "ailing" | "leaving" | "closed";

  constructor(engine: Engine, services: readonly string[]) {
    this.#known = new Set(["", ...services]);
    this.#status = engine.status().problem === null ? "serving" : "ailing";
    this.#unsubscribe = engine.onHealth((problem) => {
      if (this.#status === "serving" || this.#status === "ailing") this.#turn(problem === null ? "serving" : "ailing");
    });
  }

  /** From now on the node says NOT_SERVING, whatever the engine says. */
  leave(): void {
    this.#turn("leaving");
  }

  /** Ends all watchers. */
  close(): void {
    this.#unsubscribe();
    this.#turn("closed");
  }

  #turn(status: "serving" | "ailing" | "leaving" | "closed"): void {
    this.#status = status;
    for (const listener of this.#listeners) listener();
  }

  #statusOf(service: string): Serving {
    if (!this.#known.has(service)) return Serving.SERVICE_UNKNOWN;
    return this.#status === "serving" ? Serving.SERVING : Serving.NOT_SERVING;
  }

  async *#watch(service: string, signal: AbortSignal) {
    let last: Serving | null = null;
    while (!signal.aborted && this.#status !== "closed") {
      const now = this.#statusOf(service);
      if (now === last) await this.#change(signal);
      else yield { status: now };
      last = now;
    }
  }

  #change(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        this.#listeners.delete(done);
        signal.removeEventListener("abort", done);
        resolve();
      };
      this.#listeners.add(done);
      signal.addEventListener("abort", done, { once: true });
      if (signal.aborted) done();
    });
  }
}
