import { setTimeout as delay } from "node:timers/promises";
import { StarlingError, toStarlingError } from "../../proto/starling-error.ts";
import { type Connection, type ConnectionOptions, createConnection } from "./connection.ts";
import { clusterLockClass } from "./schema.ts";

/** An advisory lock that a node holds for its life: without etcd alone, with it together with the other nodes (R25). */
export interface ExclusiveLock {
  close(): Promise<void>;
}

export interface ExclusiveLockOptions {
  /** Names this node to the one that finds the lock taken. */
  readonly name: string;
  /** Other nodes of the cluster may hold it too. */
  readonly shared?: boolean;
  /** The connection was lost and somebody else has the lock since: the node has to end. */
  readonly onLost: (error: StarlingError) => void;
  /** How long somebody else may have it then, in ms; default 30 s: this node's own lost session may take a while to end. */
  readonly lostAfterMs?: number;
}

/** A killed node's session may take a moment to end. */
const patienceMs = 2_000;
const lostAfterDefaultMs = 30_000;
const everyMs = 100;

/** Takes the lock. Raises DATA_FOLDER_TAKEN, which names the holder. */
export async function lockExclusively(
  connect: Omit<ConnectionOptions, "application" | "onClose">,
  { name, shared = false, onLost, lostAfterMs = lostAfterDefaultMs }: ExclusiveLockOptions,
): Promise<ExclusiveLock> {
  let status: "taking" | "held" | "closed" = "taking";
  const connection = createConnection({
    ...connect,
    application: `starling ${name}`.slice(0, 63),
    onClose: () => {
      if (status !== "held") return;
      status = "taking";
      // As long as PostgreSQL is away nobody takes the lock, and nothing is written: there is time.
      take(lostAfterMs, "wait").catch((error: unknown) => {
        if (status !== "closed") onLost(toStarlingError(error));
      });
    },
  });
  const take = async (patience: number, whileAway: "wait" | "fail"): Promise<void> => {
    let deadline = performance.now() + patience;
    while (status === "taking") {
      const problem = await tryLock(connection, shared);
      if (problem?.code === "STORE" && whileAway === "wait") deadline = performance.now() + patience;
      if (problem === null) status = "held";
      else if (performance.now() > deadline) throw problem;
      else await delay(everyMs);
    }
  };
  const close = async (): Promise<void> => {
    status = "closed";
    await connection.close();
  };
  try {
    await take(patienceMs, "fail");
  } catch (error) {
    await close();
    throw error;
  }
  return { close };
}

async function tryLock(connection: Connection, shared: boolean): Promise<StarlingError | null> {
  try {
    const tryText = `select pg_try_advisory_lock${shared ? "_shared" : ""}($1, 2) as taken`;
    const [row] = await connection.query<{ taken: boolean }>(tryText, [clusterLockClass]);
    if (row?.taken === true) return null;
    const [holder] = await connection.query<{ name: string; pid: number }>(
      `select a.application_name as name, a.pid from pg_locks l join pg_stat_activity a using (pid)
        where l.locktype = 'advisory' and l.classid = $1::bigint::oid and l.objid = 2 and l.granted
          and l.database = (select oid from pg_database where datname = current_database())`,
      [clusterLockClass],
    );
    return new StarlingError(
      "DATA_FOLDER_TAKEN",
      `another node uses the database${shared ? " alone, without etcd" : ""}: ${holder?.name ?? "it ended just now"}`,
    );
  } catch (error) {
    return toStarlingError(error, "STORE");
  }
}
