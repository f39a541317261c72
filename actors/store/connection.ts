import type { Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import postgres from "postgres";
import { StarlingError } from "../../proto/starling-error.ts";
import { clientSettings } from "./client-settings.ts";
import { dial, type Place, parseUrl } from "./place.ts";
import { classOf, codeOf, endsSession, translate } from "./postgres-error.ts";
import { watchSilence } from "./silence.ts";

/*
 * The door to the npm package postgres. Four of its habits are kept out:
 *
 * 1. It pipelines statements on busy connections, so that a slow one delays others: here every connection is a client of
 *    its own with one statement in flight, and a pool hands connections out in turn.
 * 2. It has no deadline on the client's side: here the socket is destroyed when one passes, and the outcome is STORE.
 * 3. It never sets `noDelay`, and waits up to 20 s between attempts to connect.
 * 4. A client whose session ends while it is about to write keeps what it had to write and forgets to write at all: its next
 *    session never begins, and no deadline of the package ends that. Here a client has one session, and the next a new client.
 *
 * And one of networks: a connection may be silent for ever (`silence.ts`).
 */

/** A value that goes to PostgreSQL; rows of bulk data are packed into one text (see pack.ts). */
export type Parameter = string | number | boolean | null;

/** A set of connections with one kind of work, so that it waits only for its like. */
export interface Pool {
  /** Runs one statement as its own transaction. Raises STORE, STORE_REFUSED, STORE_FATAL. */
  query<Row extends object>(text: string, parameters?: readonly Parameter[]): Promise<Row[]>;
  /** Runs statements on one connection that nobody else uses meanwhile. */
  alone<T>(run: (connection: Connection) => Promise<T>): Promise<T>;
  close(): Promise<void>;
}

/** One connection: one statement in flight. */
export interface Connection {
  query<Row extends object>(text: string, parameters?: readonly Parameter[]): Promise<Row[]>;
  /** Several statements in one round trip, without parameters and rows. */
  script(text: string): Promise<void>;
  close(): Promise<void>;
}

export interface ConnectionOptions {
  readonly url: string;
  /** Shown in pg_stat_activity. */
  readonly application: string;
  /** Bound of one statement, on the server. */
  readonly statementTimeoutMs: number;
  /** How much later the client gives it up; default 5 s. */
  readonly graceMs?: number;
  readonly connectTimeoutMs: number;
  /** False: statements are planned for their very parameters each time, and none is kept; for texts without number. */
  readonly prepare?: boolean;
  /** Called when the connection has gone, whoever ended it. */
  readonly onClose?: () => void;
  /** Told of each statement that failed: PostgreSQL's class of errors, or the system's code. */
  readonly onError?: (errorClass: string) => void;
  /** Runs before the first statement of each session, the first one's too; what it raises, the statement raises. */
  readonly onSession?: (session: Pick<Connection, "query">) => Promise<void>;
  /** Why no statement is to run any more; null: there is no reason. */
  readonly barred?: () => StarlingError | null;
  /** Of all connections that take the same way; default its own. */
  readonly silences?: Silences;
}

/** When a connection was last found to be silent: others that have said nothing since are so, too, or will be connected anew. */
export interface Silences {
  lastAt: number;
}

export function createSilences(): Silences {
  return { lastAt: Number.NEGATIVE_INFINITY };
}

export interface PoolOptions extends ConnectionOptions {
  readonly size: number;
  /** Statements that wait for a connection; one more is STORE. */
  readonly waitingMax: number;
}

const graceDefaultMs = 5_000;
/** How long a connection that was lost rests before it connects again. */
const restFirstMs = 20;
const restMaxMs = 500;
/** How long a connection that is closed waits for its statement, of which nobody wants to know any more. */
const closeGraceMs = 2_000;

/** Creates a connection; it connects with its first statement, and again after it was lost. */
export function createConnection(options: ConnectionOptions): Connection {
  const place = parseUrl(options.url);
  const { statementTimeoutMs, graceMs = graceDefaultMs, prepare = true, silences = createSilences() } = options;
  const giveUpMs = statementTimeoutMs === 0 ? 0 : statementTimeoutMs + graceMs;
  const closing = new AbortController();
  let current: Session | null = null;
  let greeted: Session | null = null;
  let lost = { times: 0, at: 0 };
  let work: Promise<unknown> = Promise.resolve();
  /** The session has gone, or is given up: what waits in it is rejected, and who does not answer is left alone. */
  const retire = (session: Session): void => {
    endSession(session);
    if (current !== session) return;
    current = null;
    lost = { times: lost.times + 1, at: performance.now() };
    void session.sql.end({ timeout: 0 }).catch(() => undefined); // it is gone already
  };
  /** The session of now; after one that was lost a new one, the later the more of them were lost in turn. */
  const open = async (): Promise<Session> => {
    if (current !== null && current.heardAt < silences.lastAt) retire(current);
    const restMs = lost.at + Math.min(restFirstMs * 2 ** (lost.times - 1), restMaxMs) - performance.now();
    const rests = current === null && lost.times > 0 && restMs > 0;
    // A rest that is aborted has ended, no more.
    if (rests) await delay(restMs, undefined, { signal: closing.signal }).catch(() => undefined);
    if (closing.signal.aborted) throw new StarlingError("STORE", "the connection is closed");
    current ??= beginSession(place, options, retire);
    return current;
  };
  const bounded = async <T>(session: Session, statement: Promise<T>): Promise<T> => {
    const giveUp = (): void => retire(session);
    const onSilent = (): void => {
      silences.lastAt = performance.now();
      retire(session);
    };
    const asked = { statement, socket: () => session.socket };
    const { application } = options;
    const result = withDeadline(watchSilence(asked, { place, application }, onSilent), giveUpMs, giveUp);
    work = result.then(
      () => {
        session.heardAt = performance.now();
        if (session === current) lost.times = 0;
      },
      // The caller has the error; what it asks next goes to another session.
      (error: unknown) => {
        options.onError?.(classOf(error));
        if (endsSession(codeOf(error))) retire(session);
      },
    );
    return await result;
  };
  const query = async <Row extends object>(text: string, parameters: readonly Parameter[] = []): Promise<Row[]> => {
    const session = await open();
    return await bounded(session, session.sql.unsafe<Row[]>(text, [...parameters], { prepare }).execute());
  };
  const greet = async (): Promise<void> => {
    const problem = options.barred?.() ?? null;
    if (problem !== null) throw problem;
    while (options.onSession !== undefined) {
      const session = await open();
      if (session === greeted) return;
      await options.onSession({ query });
      if (session === current) greeted = session;
    }
  };
  return {
    query: async <Row extends object>(text: string, parameters?: readonly Parameter[]) => {
      await greet();
      return await query<Row>(text, parameters);
    },
    script: async (text) => {
      await greet();
      const session = await open();
      await bounded(session, session.sql.unsafe(text).simple().execute());
    },
    close: async () => {
      await Promise.race([work, delay(closeGraceMs, undefined, { ref: false })]);
      closing.abort();
      const session = current;
      await session?.sql.end({ timeout: 0 }).catch(() => undefined); // it is gone already
      // Who does not answer an end in order would keep the process alive.
      if (session !== null) endSession(session);
    },
  };
}

/** One session: a client of the package, and its socket as soon as there is one. */
interface Session {
  readonly sql: postgres.Sql;
  status: "open" | "ended";
  socket: Socket | null;
  /** When it began, or was last answered. Monotonic ms. */
  heardAt: number;
}

function endSession(session: Session): void {
  session.status = "ended";
  session.socket?.destroy();
}

/** Begins a session, which connects with its first statement. `onGone` is told of its end, as `onClose` is. */
function beginSession(place: Place, options: ConnectionOptions, onGone: (session: Session) => void): Session {
  const sql = postgres({
    ...place.settings,
    ...clientSettings,
    socket: () => {
      // Where its socket is destroyed while it connects, the package connects again, whoever has ended it.
      if (session.status === "ended") throw new StarlingError("STORE", "the session has ended");
      return dial(place, (socket) => {
        session.socket = socket;
      });
    },
    idle_timeout: 0,
    max_lifetime: 0,
    connect_timeout: options.connectTimeoutMs / 1000,
    onclose: () => {
      onGone(session);
      options.onClose?.();
    },
    connection: {
      application_name: options.application,
      statement_timeout: options.statementTimeoutMs,
      ...sessionSettings,
    },
  } as postgres.Options<Record<string, postgres.PostgresType>>);
  const session: Session = { sql, status: "open", socket: null, heardAt: performance.now() };
  return session;
}

/** A connection whose other end has gone holds its locks no longer than it takes the server to notice: about ten seconds. */
const sessionSettings = {
  synchronous_commit: "on",
  default_transaction_isolation: "read committed",
  TimeZone: "UTC",
  tcp_keepalives_idle: 5,
  tcp_keepalives_interval: 2,
  tcp_keepalives_count: 2,
  tcp_user_timeout: 10_000,
  jit: false,
  work_mem: "64MB",
};

/** Creates a pool of `size` connections. */
export function createPool(options: PoolOptions): Pool {
  const all = Array.from({ length: options.size }, () => createConnection(options));
  const free = [...all];
  const waiting: ((connection: Connection) => void)[] = [];
  const take = (): Promise<Connection> => {
    const connection = free.shift();
    if (connection !== undefined) return Promise.resolve(connection);
    if (waiting.length >= options.waitingMax)
      throw new StarlingError("STORE", "too many statements wait for PostgreSQL");
    return new Promise((fulfil) => waiting.push(fulfil));
  };
  const give = (connection: Connection) => {
    const next = waiting.shift();
    if (next === undefined) free.push(connection);
    else next(connection);
  };
  const alone = async <T>(run: (connection: Connection) => Promise<T>): Promise<T> => {
    const connection = await take();
    try {
      return await run(connection);
    } finally {
      give(connection);
    }
  };
  return {
    alone,
    query: (text, parameters) => alone((connection) => connection.query(text, parameters)),
    close: async () => {
      await Promise.all(all.map((connection) => connection.close()));
    },
  };
}

async function withDeadline<T>(work: Promise<T>, ms: number, giveUp: () => void): Promise<T> {
  const timer = ms === 0 ? null : setTimeout(giveUp, ms);
  try {
    return await work;
  } catch (error) {
    throw translate(error);
  } finally {
    if (timer !== null) clearTimeout(timer);
  }
}
