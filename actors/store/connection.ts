import { connect, type Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import postgres from "postgres";
import { StarlingError } from "../../proto/starling-error.ts";

/*
 * The one door to the npm package postgres. Four of its habits are kept out:
 *
 * 1. It pipelines statements on busy connections, so that a slow one delays others: here every connection is a client of
 *    its own with one statement in flight, and a pool hands connections out in turn.
 * 2. It has no deadline on the client's side: here the socket is destroyed when one passes, and the outcome is STORE.
 * 3. It never sets `noDelay`, and waits up to 20 s between attempts to connect.
 * 4. A client whose session ends while it is about to write keeps what it had to write and forgets to write at all: its next
 *    session never begins, and no deadline of the package ends that. Here a client has one session, and the next a new client.
 *
 * And one of networks: a connection that lost bytes on the way is silent for ever at both ends. A statement that has no
 * answer after a while is looked for in the server by a connection of its own: where its backend waits for this side or has gone,
 * twice in a row, the connection is destroyed, and the outcome is STORE. Slow statements run on.
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
}

export interface PoolOptions extends ConnectionOptions {
  readonly size: number;
  /** Statements that wait for a connection; one more is STORE. */
  readonly waitingMax: number;
}

const graceDefaultMs = 5_000;
/** Silence after which a statement is looked for, and the pause until it is looked for again. */
const silentMs = 2_000;
const lookAgainMs = 1_000;

/** How long a connection that was lost rests before it connects again. */
const restFirstMs = 20;
const restMaxMs = 500;
/** How long a connection that is closed waits for its statement, of which nobody wants to know any more. */
const closeGraceMs = 2_000;

/** Creates a connection; it connects with its first statement, and again after it was lost. */
export function createConnection(options: ConnectionOptions): Connection {
  const place = parseUrl(options.url);
  const { statementTimeoutMs, graceMs = graceDefaultMs, prepare = true } = options;
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
    const runs = (pid: number, signal: AbortSignal): Promise<boolean> => isRunning(place, options, { pid, signal });
    const result = withDeadline(watchSilence(statement, runs, giveUp), giveUpMs, giveUp);
    work = result.then(
      () => {
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
}

function endSession(session: Session): void {
  session.status = "ended";
  session.socket?.destroy();
}

type Place = ReturnType<typeof parseUrl>;

/** Begins a session, which connects with its first statement. `onGone` is told of its end, as `onClose` is. */
function beginSession(place: Place, options: ConnectionOptions, onGone: (session: Session) => void): Session {
  const { settings, target, host } = place;
  const sql = postgres({
    ...settings,
    ...clientSettings,
    // The package hands over its options; an unconnected socket queues what is written.
    socket: () => {
      // Where its socket is destroyed while it connects, the package connects again, whoever has ended it.
      if (session.status === "ended") throw new StarlingError("STORE", "the session has ended");
      session.socket = connect(target);
      return Object.assign(session.socket, { host });
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
  const session: Session = { sql, status: "open", socket: null };
  return session;
}

/**
 * Of a backend: whether it waits for its client, also in the middle of a statement that is prepared and not executed; null: there is
 * no such backend. A server that is asked through another program knows the backends by other numbers than that program says.
 */
const lookText = `
select pg_backend_pid() as own, (
  select state like 'idle%' or coalesce(wait_event = 'ClientRead', false) from pg_stat_activity where pid = $1
) as waits`;

/** Whether the server runs a statement of a backend, or cannot say. Nobody wants to know any more once it is aborted. */
async function isRunning(
  { settings, target, host }: Place,
  options: ConnectionOptions,
  { pid, signal }: { readonly pid: number; readonly signal: AbortSignal },
): Promise<boolean> {
  const socket = connect(target);
  const probe = postgres({
    ...settings,
    ...clientSettings,
    socket: () => Object.assign(socket, { host }),
    connect_timeout: silentMs / 1000,
    connection: { application_name: `${options.application}-look`, statement_timeout: silentMs },
  } as postgres.Options<Record<string, postgres.PostgresType>>);
  const end = () => probe.end({ timeout: 0 }).catch(() => undefined); // it is gone already
  const giveUp = (): void => void end();
  const timer = setTimeout(giveUp, silentMs);
  signal.addEventListener("abort", giveUp, { once: true });
  try {
    const asking = probe.unsafe<{ own: number; waits: boolean | null }[]>(lookText, [pid]).execute();
    const [row] = await asking;
    return row?.waits === null ? row.own !== backendOf(asking) : row?.waits !== true;
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", giveUp);
    await end();
    socket.destroy();
  }
}

const clientSettings = { max: 1, fetch_types: false, onnotice: () => undefined };
const sessionSettings = {
  synchronous_commit: "on",
  default_transaction_isolation: "read committed",
  TimeZone: "UTC",
  tcp_keepalives_idle: 10,
  tcp_keepalives_interval: 5,
  tcp_keepalives_count: 3,
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

/** Gives a statement up that the server does not run and that has no answer all the same. */
function watchSilence<T>(
  statement: Promise<T>,
  runs: (pid: number, signal: AbortSignal) => Promise<boolean>,
  giveUp: () => void,
): Promise<T> {
  let missed = 0;
  let timer = setTimeout(() => void look(), silentMs);
  const ended = new AbortController();
  const look = async (): Promise<void> => {
    // The package knows the backend as soon as it has sent the statement; connecting has a deadline of its own.
    const pid = backendOf(statement);
    // A server that cannot be asked says nothing about the statement.
    const found = pid === null || (await runs(pid, ended.signal).catch(() => true));
    if (ended.signal.aborted) return;
    missed = found ? 0 : missed + 1;
    if (missed >= 2) return giveUp();
    timer = setTimeout(() => void look(), lookAgainMs);
  };
  return statement.finally(() => {
    ended.abort();
    clearTimeout(timer);
  });
}

/** The backend that a statement of the package was sent to, by the number that the package was told; null: none yet. */
function backendOf(statement: Promise<unknown>): number | null {
  return (statement as { readonly state?: { readonly pid: number | null } | null }).state?.pid ?? null;
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

/** Classes that another attempt can cure; 25006 is a server that is only read, during a fail-over. */
const again = /^(08|40|53|55|57|58)|^25006$|^0A000$/;
const refused = /^(22|23|54)/;
/** Codes of the server, each of which has a digit; EPIPE, of the system, is none. */
const sqlState = /^(?=.*\d)[0-9A-Z]{5}$/;

/**
 * Whether the server has run out of transaction ids, or of their groups: of the class of limits too, but not the data's fault. Where
 * in the server an error was raised is told in no language.
 */
function isExhausted(error: unknown): boolean {
  const { file } = error as { readonly file?: unknown };
  return file === "varsup.c" || file === "multixact.c";
}

/** A StarlingError of what the package or the server raised. */
function translate(error: unknown): StarlingError {
  if (error instanceof StarlingError) return error;
  const message = error instanceof Error && error.message !== "" ? error.message : String(error);
  const code = codeOf(error);
  if (code === null) return new StarlingError("INTERNAL", message, { cause: error });
  if (!sqlState.test(code) || again.test(code) || isExhausted(error))
    return new StarlingError("STORE", message, { cause: error });
  if (refused.test(code)) return new StarlingError("STORE_REFUSED", message, { cause: error });
  return new StarlingError("STORE_FATAL", `${message} (${code})`, { cause: error });
}

/** The SQLSTATE, or the package's or the system's code (CONNECTION_CLOSED, ECONNREFUSED), of an error or its cause. */
export function codeOf(error: unknown): string | null {
  if (error instanceof StarlingError) return codeOf(error.cause);
  const code = (error as { code?: unknown } | null | undefined)?.code;
  if (typeof code === "string") return code;
  const inner = error instanceof AggregateError ? error.errors[0] : undefined;
  return inner === undefined ? null : codeOf(inner);
}

/** Whether the server has said that it goes, or the package or the system that it is gone. */
function endsSession(code: string | null): boolean {
  return code !== null && (!sqlState.test(code) || code.startsWith("57P0"));
}

/** The first two digits of an SQLSTATE stand for its class; other codes are few. */
function classOf(error: unknown): string {
  const code = codeOf(error);
  if (code === null) return "unknown";
  return sqlState.test(code) ? code.slice(0, 2) : code;
}

/** A URL as libpq knows it: `?host=/folder` is a unix socket. */
function parseUrl(text: string) {
  let url: URL;
  try {
    url = new URL(text);
  } catch (cause) {
    throw new StarlingError("CONFIG", "the database's URL is not a URL", { cause });
  }
  if (url.protocol !== "postgres:" && url.protocol !== "postgresql:") {
    throw new StarlingError("CONFIG", `the database's URL begins with ${url.protocol}, not postgres:`);
  }
  const host = url.searchParams.get("host") ?? (decodeURIComponent(url.hostname) || "localhost");
  const port = Number(url.searchParams.get("port") ?? (url.port || "5432"));
  const mode = url.searchParams.get("sslmode") ?? "disable";
  const target = host.startsWith("/") ? { path: `${host}/.s.PGSQL.${port}` } : { host, port, noDelay: true };
  const user = decodeURIComponent(url.username);
  const password = decodeURIComponent(url.password);
  const settings = {
    host,
    port,
    database: decodeURIComponent(url.pathname.slice(1)) || "postgres",
    ssl: mode === "disable" || host.startsWith("/") ? false : mode,
    ...(user === "" ? {} : { user }),
    ...(password === "" ? {} : { password }),
  };
  return { settings, target, host };
}
