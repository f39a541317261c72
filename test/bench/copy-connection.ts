import { connect, type Socket } from "node:net";

/**
 * One connection to PostgreSQL that only copies: statement, rows and the end of the rows are one buffer, made beforehand,
 * so that the client costs next to nothing. It speaks the protocol (version 3.0) itself, because the package postgres may
 * hang in COPY; a watchdog destroys the socket when PostgreSQL does not answer.
 */
export interface CopyConnection {
  /** Sends what {@link createCopyMessage} made; resolves when it is committed. */
  copy(message: Buffer): Promise<void>;
  close(): void;
}

const answerWithinMs = 60_000;
const protocolVersion = 0x0003_0000;

/** Opens a connection over a unix socket whose folder admits this account: there is no password. */
export async function openCopyConnection(databaseUrl: string): Promise<CopyConnection> {
  const url = new URL(databaseUrl);
  const socket = connect({ path: `${url.searchParams.get("host")}/.s.PGSQL.5432` });
  const answers = createAnswers(socket);
  const parameters = `user\0${url.username}\0database\0${url.pathname.slice(1)}\0\0`;
  const startup = Buffer.alloc(8 + parameters.length);
  startup.writeInt32BE(startup.length, 0);
  startup.writeInt32BE(protocolVersion, 4);
  startup.write(parameters, 8);
  await answers.after(startup);
  return { copy: (message) => answers.after(message), close: () => socket.destroy() };
}

/** A COPY of `rows` into a table, as its own transaction. */
export function createCopyMessage(table: string, format: "text" | "binary", rows: Buffer): Buffer {
  const statement = Buffer.from(`copy ${table} from stdin (format ${format})\0`);
  return Buffer.concat([frame("Q", statement), frame("d", rows), frame("c", Buffer.alloc(0))]);
}

function frame(kind: string, content: Buffer): Buffer {
  const head = Buffer.alloc(5);
  head.write(kind, 0, "latin1");
  head.writeInt32BE(content.length + 4, 1);
  return Buffer.concat([head, content]);
}

/** Waits for ReadyForQuery; an ErrorResponse before it is the outcome. */
function createAnswers(socket: Socket): { after(message: Buffer): Promise<void> } {
  let waiting: { readonly done: () => void; readonly fail: (error: Error) => void } | null = null;
  let received: Buffer = Buffer.alloc(0);
  let problem: string | null = null;
  const settle = (error: Error | null): void => {
    const one = waiting;
    waiting = null;
    if (error === null) one?.done();
    else one?.fail(error);
  };
  socket.on("data", (data) => {
    received = Buffer.concat([received, data]);
    while (received.length >= 5 && received.length >= 1 + received.readInt32BE(1)) {
      const end = 1 + received.readInt32BE(1);
      const kind = String.fromCharCode(received[0] ?? 0);
      if (kind === "E") problem = received.subarray(5, end).toString("utf8").replaceAll("\0", " ");
      if (kind === "Z") {
        settle(problem === null ? null : new Error(`PostgreSQL refused a COPY: ${problem}`));
        problem = null;
      }
      received = received.subarray(end);
    }
  });
  socket.on("error", (error) => settle(error));
  socket.on("close", () => settle(new Error("PostgreSQL closed the connection")));
  return {
    after: (message) =>
      new Promise((done, fail) => {
        const watchdog = setTimeout(() => socket.destroy(), answerWithinMs);
        const ended = (then: () => void): void => {
          clearTimeout(watchdog);
          then();
        };
        waiting = { done: () => ended(done), fail: (error) => ended(() => fail(error)) };
        socket.write(message);
      }),
  };
}
