import { type ActorsClient, createActorsClient } from "./actors-client.ts";
import { type AdminClient, createAdminClient } from "./admin-client.ts";
import { callUnary, type Dialled, dial } from "./client-call.ts";
import { createEntitiesClient, type EntitiesClient } from "./entities-client.ts";
import { Admin } from "./gen/starling_pb.ts";
import { StarlingError, toStarlingError } from "./starling-error.ts";

export interface CallsOptions {
  readonly address?: string;
  readonly addresses?: readonly string[];
  /** Sent as `authorization: Bearer …`; reserved. */
  readonly token?: string;
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

/** Takes the first of the addresses that answers. Raises UNAVAILABLE with the reason of the last one. */
export async function openCalls(options: CallsOptions): Promise<Calls> {
  const addresses = options.addresses ?? (options.address === undefined ? [] : [options.address]);
  const { connectMs = 30_000, callMs = 30_000 } = options;
  let reason = "no address was given";
  for (const address of addresses) {
    const dialled = dial(address, options.token ?? null);
    try {
      await callUnary(dialled, Admin.method.status, {}, connectMs / addresses.length);
      return callsOn(dialled, callMs);
    } catch (error) {
      dialled.grpc.close();
      reason = toStarlingError(error).message;
    }
  }
  throw new StarlingError("UNAVAILABLE", `no node answered at ${addresses.join(", ")}: ${reason}`);
}

function callsOn(dialled: Dialled, callMs: number): Calls {
  const connected = async () => dialled;
  const close = async () => dialled.grpc.close();
  const entities = createEntitiesClient(connected, callMs);
  const admin = createAdminClient(connected, callMs);
  const actors = createActorsClient(connected, callMs);
  return { address: dialled.address, entities, admin, actors, close, [Symbol.asyncDispose]: close };
}
