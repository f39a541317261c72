import type { ServerHttp2Session } from "node:http2";
import type { Server } from "@grpc/grpc-js";

/**
 * What grpc-js 1.14 does not offer for a server: the receive window, which it pins at 64 KiB, and the reset of one call.
 * Both reach behind its interface, and both do nothing when a newer version looks different there.
 */
interface Behind {
  commonServerOptions?: { settings?: { initialWindowSize?: number } };
  http2Servers?: Map<{ on(event: "session", listener: (session: ServerHttp2Session) => void): void }, unknown>;
}

/** Widens the window of every stream. Before the server is bound. */
export function widenStreamWindows(server: Server, bytes: number): void {
  const { commonServerOptions } = server as unknown as Behind;
  if (commonServerOptions === undefined) return;
  commonServerOptions.settings = { ...commonServerOptions.settings, initialWindowSize: bytes };
}

/** Widens the window of every connection. After the server is bound. */
export function widenConnectionWindows(server: Server, bytes: number): void {
  const { http2Servers } = server as unknown as Behind;
  for (const http2Server of http2Servers?.keys() ?? []) {
    http2Server.on("session", (session) => session.setLocalWindowSize(bytes));
  }
}

/** Cuts a call off at once, although its client reads nothing. */
export function resetCall(call: object): void {
  const cancelCode = 8;
  const { stream } = (call as { call?: { stream?: { close?(code: number): void } } }).call ?? {};
  stream?.close?.(cancelCode);
}
