import { connect, createServer, type Socket } from "node:net";

/** A port of loopback at which PostgreSQL says that it is starting up, until it is there. */
export interface RefusingPostgres {
  /** Connections that were refused. */
  readonly refused: number;
  /** From now on connections go to the PostgreSQL behind this unix socket. */
  open(path: string): void;
  /** Breaks the connections that there are, and refuses again. */
  refuse(): void;
  close(): Promise<void>;
}

/** Fields of PostgreSQL's ErrorResponse, a letter and a text each. */
const startingUp = ["SFATAL", "VFATAL", "C57P03", "Mthe database system is starting up"];

/** Listens on a port at which nobody listened. `fields`: of the error that it answers. */
export async function startRefusingPostgres(port: number, fields = startingUp): Promise<RefusingPostgres> {
  const sockets = new Set<Socket>();
  let refused = 0;
  let path: string | null = null;
  const keep = (socket: Socket): void => {
    sockets.add(socket);
    socket.on("error", () => socket.destroy());
    socket.on("close", () => sockets.delete(socket));
  };
  const server = createServer((client) => {
    keep(client);
    if (path === null) {
      refused += 1;
      client.once("data", () => client.end(errorOf(fields)));
      return;
    }
    const postgres = connect(path);
    keep(postgres);
    client.pipe(postgres).pipe(client);
    client.on("close", () => postgres.destroy());
    postgres.on("close", () => client.destroy());
  });
  await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
  const breakAll = (): void => {
    for (const socket of sockets) socket.destroy();
  };
  return {
    get refused() {
      return refused;
    },
    open: (to) => {
      path = to;
    },
    refuse: () => {
      path = null;
      breakAll();
    },
    close: () => {
      breakAll();
      return new Promise((resolve) => server.close(() => resolve()));
    },
  };
}

/** An ErrorResponse of PostgreSQL's protocol: `E`, the length, the fields. */
function errorOf(fields: readonly string[]): Buffer {
  const body = Buffer.from(`${fields.map((field) => `${field}\0`).join("")}\0`);
  const head = Buffer.alloc(5);
  head.write("E");
  head.writeInt32BE(4 + body.length, 1);
  return Buffer.concat([head, body]);
}
