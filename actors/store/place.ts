import { connect, type Socket } from "node:net";
import { setImmediate } from "node:timers/promises";
import { StarlingError } from "../../proto/starling-error.ts";

/** Where a server is, and as whom to ask it. */
export type Place = ReturnType<typeof parseUrl>;

/**
 * A socket on its way there, as the package postgres takes it: an unconnected one queues what is written. The package listens to it
 * after a while only, so what fails at once is raised here; `onSocket` has it before. Raises what the system says.
 */
export async function dial({ target, host }: Place, onSocket: (socket: Socket) => void): Promise<Socket> {
  const socket = connect(target);
  // An error that nobody listens to would end the process.
  socket.on("error", () => undefined);
  onSocket(socket);
  await setImmediate();
  if (socket.errored !== null) throw socket.errored;
  if (socket.destroyed) throw new StarlingError("STORE", "the session has ended");
  // The package hands over its options.
  return Object.assign(socket, { host });
}

/** A URL as libpq knows it: `?host=/folder` is a unix socket. */
export function parseUrl(text: string) {
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
