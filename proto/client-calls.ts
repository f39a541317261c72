import { type ActorsClient, createActorsClient } from "./actors-client.ts";
import { type AdminClient, createAdminClient } from "./admin-client.ts";
import { callUnary, type Dialled } from "./client-call.ts";
import { type Dialler, openDialler, type ReachOptions } from "./client-dialler.ts";
import { systemClock } from "./clock.ts";
import { createEntitiesClient, type EntitiesClient } from "./entities-client.ts";
import { Admin } from "./gen/starling_pb.ts";
import { StarlingError, toStarlingError } from "./starling-error.ts";

export interface CallsOptions extends ReachOptions {
  readonly address?: string;
  readonly addresses?: readonly string[];
  /** Bounds the search for a node; default 30 s. */
  readonly connectMs?: number;
  /** Bounds each call; default 30 s. */
  readonly callMs?: number;
}

/** Entities and administration without a session: for whoever only asks. */
export interface Calls extends AsyncDisposable {
  readonly address: string;
  readonly entities: EntitiesClient;
  readonly admin: AdminClient;
  readonly actors: ActorsClient;
  close(): Promise<void>;
}

/**
 * Takes the first of the addresses that answers. Raises UNAVAILABLE with the reason of the last one, and at once
 * UNAUTHENTICATED and PERMISSION_DENIED, and INVALID_ARGUMENT where plain text would leave loopback.
 */
export async function openCalls(options: CallsOptions): Promise<Calls> {
  const addresses = options.addresses ?? (options.address === undefined ? [] : [options.address]);
  const { connectMs = 30_000, callMs = 30_000 } = options;
  const dialler = await openDialler({ ...options, addresses, clock: systemClock });
  let reason = "no address was given";
  for (const address of addresses) {
    const dialled = dialler.dial(address);
    try {
      await callUnary(dialled, Admin.method.status, {}, connectMs / addresses.length);
      return callsOn(dialled, dialler, callMs);
    } catch (error) {
      dialled.grpc.close();
      const problem = toStarlingError(error);
      reason = problem.message;
      if (problem.code !== "UNAUTHENTICATED" && problem.code !== "PERMISSION_DENIED") continue;
      dialler.close();
      throw problem;
    }
  }
  dialler.close();
  throw new StarlingError("UNAVAILABLE", `no node answered at ${addresses.join(", ")}: ${reason}`);
}

function callsOn(first: Dialled, dialler: Dialler, callMs: number): Calls {
  const { address } = first;
  let dialled = first;
  // A connection that breaks later is made again by grpc-js, with what it was given: new certificates need a new one.
  dialler.onChange(() => {
    dialled.grpc.close();
    dialled = dialler.dial(address);
  });
  const connected = async () => dialled;
  const close = async () => {
    dialler.close();
    dialled.grpc.close();
  };
  const entities = createEntitiesClient(connected, callMs);
  const admin = createAdminClient(connected, callMs);
  const actors = createActorsClient(connected, callMs);
  return { address, entities, admin, actors, close, [Symbol.asyncDispose]: close };
}
