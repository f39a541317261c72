import type { Socket } from "node:net";
import postgres from "postgres";
import { StarlingError } from "../../proto/starling-error.ts";
import { clientSettings } from "./client-settings.ts";
import { dial, type Place } from "./place.ts";

/*
 * A connection that lost bytes on the way is silent for ever at both ends. A statement that has no answer after a while is looked for
 * in the server by a connection of its own: where its backend waits for this side or has gone, twice in a row, while no byte has
 * passed, it is given up. Slow statements run on, and so do large ones on a slow line.
 */

/** A statement whose answer is waited for. */
export interface Asked<T> {
  readonly statement: Promise<T>;
  /** What it travels through; null: it is being connected, which has a deadline of its own. */
  readonly socket: () => Socket | null;
}

/** Of those that look for it. */
export interface Looker {
  readonly place: Place;
  readonly application: string;
}

/** Silence after which a statement is looked for, and the pause until it is looked for again. */
const silentMs = 2_000;
const lookAgainMs = 1_000;
/** So often it is not found, and once more for each MiB that was sent with it, which may still be on its way. */
const missedMax = 2;
const slowBytes = 1024 * 1024;

/** The statement; given up where the server does not run it and it has no answer all the same. */
export function watchSilence<T>({ statement, socket }: Asked<T>, looker: Looker, giveUp: () => void): Promise<T> {
  const ended = new AbortController();
  const begun = passedOf(socket());
  let seen = begun;
  let missed = 0;
  let timer = setTimeout(() => void look(), silentMs);
  const look = async (): Promise<void> => {
    const pid = backendOf(statement);
    // A server that cannot be asked says nothing about the statement.
    const waits = pid !== null && (await isWaiting(looker, pid, ended.signal).catch(() => false));
    if (ended.signal.aborted) return;
    const now = passedOf(socket());
    missed = waits && now.sent === seen.sent && now.received === seen.received ? missed + 1 : waits ? 1 : 0;
    seen = now;
    if (missed >= missedMax + Math.floor((now.sent - begun.sent) / slowBytes)) return giveUp();
    timer = setTimeout(() => void look(), lookAgainMs);
  };
  return statement.finally(() => {
    ended.abort();
    clearTimeout(timer);
  });
}

function passedOf(socket: Socket | null): { readonly sent: number; readonly received: number } {
  return { sent: socket?.bytesWritten ?? 0, received: socket?.bytesRead ?? 0 };
}

/**
 * Of a backend: whether it waits for its client, also in the middle of a statement that is prepared and not executed; null: there is
 * no such backend.
 */
const lookText = `
select pg_backend_pid() as own, (
  select state like 'idle%' or coalesce(wait_event in ('ClientRead', 'ClientWrite'), false)
    from pg_stat_activity where pid = $1
) as waits`;

/** Whether a backend waits for its client or has gone, as far as the server can say. Raises what keeps it from being asked. */
async function isWaiting({ place, application }: Looker, pid: number, signal: AbortSignal): Promise<boolean> {
  const sockets: Socket[] = [];
  let isOver = false;
  const probe = postgres({
    ...place.settings,
    ...clientSettings,
    socket: () => {
      // Where its socket is destroyed while it connects, the package connects again.
      if (isOver) throw new StarlingError("STORE", "nobody looks any more");
      return dial(place, (socket) => void sockets.push(socket));
    },
    connect_timeout: silentMs / 1000,
    connection: { application_name: `${application}-look`, statement_timeout: silentMs },
  } as postgres.Options<Record<string, postgres.PostgresType>>);
  const end = async (): Promise<void> => {
    isOver = true;
    await probe.end({ timeout: 0 }).catch(() => undefined); // it is gone already
    for (const socket of sockets) socket.destroy();
  };
  const giveUp = (): void => void end();
  const timer = setTimeout(giveUp, silentMs);
  signal.addEventListener("abort", giveUp, { once: true });
  try {
    const asking = probe.unsafe<{ own: number; waits: boolean | null }[]>(lookText, [pid]).execute();
    const [row] = await asking;
    // A server that is asked through another program knows its backends by other numbers than that program says.
    return row !== undefined && row.own === backendOf(asking) && row.waits !== false;
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", giveUp);
    await end();
  }
}

/** The backend that a statement of the package was sent to, by the number that the package was told; null: none yet. */
function backendOf(statement: Promise<unknown>): number | null {
  return (statement as { readonly state?: { readonly pid: number | null } | null }).state?.pid ?? null;
}
