import { connect, createServer, type Socket } from "node:net";

/** A TCP proxy that cuts its connections where a test wants it. */
export interface CutProxy {
  readonly address: string;
  /** Cuts every connection after so many bytes from the client, or towards it, counted anew per connection; null: never. */
  cutAfter: { readonly up?: number; readonly down?: number } | null;
  readonly connections: number;
  cut(): void;
  close(): Promise<void>;
}

/** Starts a proxy in front of `target()`, which is asked for every connection. */
export async function startCutProxy(target: () => string): Promise<CutProxy> {
  const sockets = new Set<Socket>();
  let connections = 0;
  const server = createServer((client) => {
    connections += 1;
    const [host = "", port = ""] = target().split(":");
    const node = connect(Number(port), host);
    const both = [client, node];
    const counts = { up: 0, down: 0 };
    const limit = proxy.cutAfter;
    for (const socket of both) {
      sockets.add(socket);
      socket.setNoDelay(true);
      socket.on("error", () => {});
      socket.on("close", () => {
        sockets.delete(socket);
        for (const one of both) one.destroy();
      });
    }
    const pass = (to: Socket, way: "up" | "down") => (chunk: Buffer) => {
      const left = (limit?.[way] ?? Number.POSITIVE_INFINITY) - counts[way];
      counts[way] += chunk.length;
      if (chunk.length <= left) to.write(chunk);
      else {
        if (left > 0) to.write(chunk.subarray(0, left));
        for (const one of both) one.destroy();
      }
    };
    client.on("data", pass(node, "up"));
    node.on("data", pass(client, "down"));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const bound = server.address();
  const proxy = {
    address: `127.0.0.1:${typeof bound === "object" && bound !== null ? bound.port : 0}`,
    cutAfter: null as CutProxy["cutAfter"],
    get connections() {
      return connections;
    },
    cut: () => {
      for (const socket of sockets) socket.destroy();
    },
    close: () => {
      for (const socket of sockets) socket.destroy();
      return new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
  return proxy;
}
