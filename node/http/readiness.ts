import type { Engine } from "../../actors/engine.ts";
import type { Membership } from "../../cluster/membership/membership.ts";
import type { Clock } from "../../proto/clock.ts";
import { withDeadline } from "../../proto/deadline.ts";
import { toStarlingError } from "../../proto/starling-error.ts";

/** How far a node is. */
export type NodePhase =
  | { readonly kind: "starting" }
  | { readonly kind: "serving"; readonly parts: ReadyParts }
  | { readonly kind: "leaving" };

export interface ReadyParts {
  readonly engine: Pick<Engine, "status">;
  readonly membership: Pick<Membership, "self">;
  /** One round trip to PostgreSQL. */
  readonly ping: () => Promise<void>;
}

const pingWithinMs = 1_000;

/**
 * Asks whether a node can be given work. Null: it can; else why not. etcd does not matter to that: a node that is without it
 * serves on. PostgreSQL is asked once at a time, whoever asks for it.
 */
export function createReadiness(phase: () => NodePhase, clock: Clock): () => Promise<string | null> {
  let pinging: Promise<void> | null = null;
  const ping = (parts: ReadyParts): Promise<string | null> => {
    pinging ??= parts.ping().finally(() => {
      pinging = null;
    });
    const text = "PostgreSQL did not answer";
    return withDeadline(pinging, { clock, deadlineMs: pingWithinMs, text }).then(() => null, describe);
  };
  return async () => {
    const now = phase();
    if (now.kind !== "serving") return `the node is ${now.kind}`;
    const { problem } = now.parts.engine.status();
    if (problem !== null) return describe(problem);
    const { state } = now.parts.membership.self;
    if (state !== "serving") return `the node is ${state}`;
    return await ping(now.parts);
  };
}

function describe(error: unknown): string {
  const { code, message } = toStarlingError(error);
  return `${code}: ${message}`;
}
