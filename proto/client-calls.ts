import { type ActorsClient, createActorsClient } from "./actors-client.ts";
import { type AdminClient, createAdminClient } from "./admin-client.ts";
import { callUnary, type Dialled } from "./client-call.ts";
import { type Dialler, openDialler, type ReachOptions } from "./client-dialler.ts";
import { systemClock } from "./clock.ts";
import { createEntitiesClient, type EntitiesClient } from "./entities-client.ts";
import { Admin } from "./gen/starling_pb.ts";
import { createSnapshotsClient, type SnapshotsClient } from "./snapshots-client.ts";
import { StarlingError, toStarlingError } from "./starling-error.ts";

export interface CallsOptions extends ReachOptions {
  readonly address?: string;
  readonly addresses?: readonly string[];
  /** Nodes that nobody named, as the cluster told of them; those that may not be dialled so are left out. */
  readonly others?: readonly string[];
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
  readonly snapshots: SnapshotsClient;
  close(): Promise<void>;
}

/** How long a node may think before the next one is asked, too. */
const patienceMs = 300;

/**
 * Takes the first node that answers; one that is silent delays that by a moment only. Raises UNAVAILABLE with what became
 * of each address, and at once UNAUTHENTICATED and PERMISSION_DENIED, and INVALID_ARGUMENT where plain text would leave
 * loopback.
 */
export async function openCalls(options: CallsOptions): Promise<Calls> {
  const named = options.addresses ?? (options.address === undefined ? [] : [options.address]);
  const { connectMs = 30_000, callMs = 30_000, others = [] } = options;
  const dialler = await openDialler({ ...options, addresses: named, clock: systemClock });
  const more = others.filter((address) => !named.includes(address) && dialler.allows(address));
  try {
    return callsOn(await findNode([...named, ...more], dialler, connectMs), dialler, callMs);
  } catch (error) {
    dialler.close();
    throw error;
  }
}

/** Asks one address after another, and does not wait for one that is slow. */
async function findNode(addresses: readonly string[], dialler: Dialler, connectMs: number): Promise<Dialled> {
  const giveUpAt = systemClock.now() + connectMs;
  let search: "on" | "over" = "on";
  const isOver = (): boolean => search === "over";
  const dialledAll: Dialled[] = [];
  const ask = async (address: string): Promise<Dialled | StarlingError> => {
    const dialled = dialler.dial(address);
    dialledAll.push(dialled);
    try {
      await callUnary(dialled, Admin.method.status, {}, Math.max(1, giveUpAt - systemClock.now()));
      if (isOver()) throw new StarlingError("UNAVAILABLE", `${address}: another one was first`);
      search = "over";
      return dialled;
    } catch (error) {
      const problem = toStarlingError(error);
      if (problem.code !== "UNAUTHENTICATED" && problem.code !== "PERMISSION_DENIED") throw placed(problem, address);
      search = "over"; // the others would say the same
      return problem;
    }
  };
  const asked: Promise<Dialled | StarlingError>[] = [];
  for (const address of addresses) {
    if (isOver()) break;
    asked.push(ask(address));
    await settledWithin(asked.at(-1), patienceMs);
  }
  const first = await Promise.any(asked).catch((error: unknown) => {
    const reasons = error instanceof AggregateError ? error.errors.map((one) => toStarlingError(one).message) : [];
    return new StarlingError("UNAVAILABLE", `no node answered: ${reasons.join("; ") || "no address was given"}`);
  });
  for (const dialled of dialledAll) if (dialled !== first) dialled.grpc.close();
  if (first instanceof StarlingError) throw first;
  return first;
}

function placed(problem: StarlingError, address: string): StarlingError {
  if (problem.message.startsWith(address)) return problem;
  return new StarlingError(problem.code, `${address}: ${problem.message}`, { cause: problem });
}

/** Waits for the end of some work, however it ends, for so long at most. */
function settledWithin(work: Promise<unknown> | undefined, ms: number): Promise<void> {
  return new Promise((resolve) => {
    const cancel = systemClock.after(ms, resolve);
    const done = (): void => {
      cancel();
      resolve();
    };
    work?.then(done, done);
  });
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
  const snapshots = createSnapshotsClient(connected, callMs);
  return { address, entities, admin, actors, snapshots, close, [Symbol.asyncDispose]: close };
}
