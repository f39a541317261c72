import { connect, createServer, type Socket } from "node:net";

/** Towards the server behind the proxy, or back. */
export type Way = "up" | "down";

/** A TCP proxy on loopback for one link, with the verbs of a bad network. */
export interface TcpProxy {
  readonly address: string;
  /** Swallows bytes, ends and resets in these directions, of connections old and new. */
  swallow(ways: readonly Way[]): void;
  /** Lets new bytes through again; a connection that lost some stays dumb in that direction, as bytes never skip. */
  restore(): void;
  /** Resets every connection. */
  cut(): void;
  /** Delays each chunk in each direction; 0: not at all. */
  delayMs: number;
  readonly connections: number;
  close(): Promise<void>;
}

/** Starts a proxy in front of `target()`, which is asked for every connection. */
export async function startTcpProxy(target: () => string): Promise<TcpProxy> {
  const swallowed = new Set<Way>();
  const pairs = new Set<readonly Socket[]>();
  const timers = new Set<NodeJS.Timeout>();
  let delayMs = 0;
  const pass = (from: Socket, to: Socket, way: Way): void => {
    let isDumb = false;
    let lastMs = 0;
    /** In order, also when the delay gets shorter. */
    const later = (run: () => void): void => {
      lastMs = Math.max(lastMs, performance.now() + delayMs);
      const waitMs = lastMs - performance.now();
      if (waitMs <= 0 && waiting.length === 0) return run();
      waiting.push(run);
      const timer = setTimeout(() => {
        timers.delete(timer);
        waiting.shift()?.();
      }, waitMs);
      timers.add(timer);
    };
    const waiting: (() => void)[] = [];
    // Whatever comes: once something was swallowed nothing gets through, or the stream would have a hole.
    const onward = (run: () => void) => {
      isDumb ||= swallowed.has(way);
      // Who sends on fills its buffers, as nobody acknowledges.
      if (isDumb) from.pause();
      else later(run);
    };
    from.on("data", (chunk) => onward(() => void to.write(chunk)));
    from.on("end", () => onward(() => void to.end()));
    from.on("error", () => onward(() => void to.resetAndDestroy()));
    from.on("close", () => onward(() => void to.destroy()));
  };
  const server = createServer({ allowHalfOpen: true }, (client) => {
    const [host = "", port = ""] = target().split(":");
    const node = connect({ port: Number(port), host, allowHalfOpen: true });
    const pair = [client, node] as const;
    pairs.add(pair);
    for (const socket of pair) {
      socket.setNoDelay(true);
      socket.on("close", () => {
        if (pair.every(({ destroyed }) => destroyed)) pairs.delete(pair);
      });
    }
    pass(client, node, "up");
    pass(node, client, "down");
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const bound = server.address();
  const cut = (): void => {
    for (const socket of [...pairs].flat()) socket.resetAndDestroy();
    pairs.clear();
  };
  return {
    address: `127.0.0.1:${typeof bound === "object" && bound !== null ? bound.port : 0}`,
    swallow: (ways) => {
      for (const way of ways) swallowed.add(way);
    },
    restore: () => swallowed.clear(),
    cut,
    get delayMs() {
      return delayMs;
    },
    set delayMs(ms) {
      delayMs = ms;
    },
    get connections() {
      return pairs.size;
    },
    close: () => {
      cut();
      for (const timer of timers) clearTimeout(timer);
      return new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}
