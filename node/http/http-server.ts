import { createServer, type IncomingMessage, type RequestListener, type Server, type ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { StarlingError } from "../../proto/starling-error.ts";
import type { TlsFiles, TlsMaterial } from "../../proto/tls-files.ts";

/** What a path answers. */
export interface Page {
  readonly status: number;
  /** Default plain text. */
  readonly mediaType?: string;
  readonly body: string;
}

export interface HttpServerOptions {
  readonly host: string;
  /** 0 takes a free one. */
  readonly port: number;
  /** By path; asked by GET and HEAD. */
  readonly pages: Readonly<Record<string, () => Page | Promise<Page>>>;
  /** New connections use what the files hold by then; null: plain text. */
  readonly tls: TlsFiles | null;
  readonly log: { error(fields: object, message: string): void };
}

export interface HttpServer {
  /** `host:port` as bound. */
  readonly address: string;
  /** Answers what was asked, and ends. Idempotent. */
  close(): Promise<void>;
}

const connectionsMax = 64;
const requestTimeoutMs = 10_000;
const idleTimeoutMs = 15_000;
const closeWithinMs = 1_000;
const headersMaxBytes = 8 * 1024;

/** Serves a few pages that programs ask for: bodies of requests are not read. Raises ADDRESS_IN_USE and CONFIG. */
export async function startHttpServer({ host, port, pages, tls, log }: HttpServerOptions): Promise<HttpServer> {
  const known = new Map(Object.entries(pages));
  const { server, forget } = createListener(tls, (request, response) => {
    answer(known, request).then(
      (page) => write(request, response, page),
      (error: unknown) => {
        log.error({ err: error, path: request.url }, "a page could not be made: this is a bug");
        write(request, response, { status: 500, body: "a bug: the node's log has it\n" });
      },
    );
  });
  server.maxConnections = connectionsMax;
  server.headersTimeout = requestTimeoutMs;
  server.keepAliveTimeout = idleTimeoutMs;
  const bound = await listen(server, host, port);
  let closing: Promise<void> | null = null;
  return {
    address: `${host}:${bound}`,
    close: () => {
      forget();
      closing ??= close(server);
      return closing;
    },
  };
}

function createListener(tls: TlsFiles | null, onRequest: RequestListener): { server: Server; forget: () => void } {
  const limits = { maxHeaderSize: headersMaxBytes, requestTimeout: requestTimeoutMs };
  if (tls === null) return { server: createServer(limits, onRequest), forget: () => {} };
  const server = createTlsServer({ ...limits, ...identityOf(tls.value) }, onRequest);
  return { server, forget: tls.onChange((material) => server.setSecureContext(identityOf(material))) };
}

function identityOf({ identity }: TlsMaterial) {
  return { ...(identity && { cert: identity.cert, key: identity.key }) };
}

async function answer(pages: ReadonlyMap<string, () => Page | Promise<Page>>, request: IncomingMessage): Promise<Page> {
  const path = (request.url ?? "").replace(/\?.*$/s, "");
  const page = pages.get(path);
  if (page === undefined) return { status: 404, body: `there is ${[...pages.keys()].join(", ")}\n` };
  if (request.method !== "GET" && request.method !== "HEAD") return { status: 405, body: "ask by GET\n" };
  return await page();
}

function write(request: IncomingMessage, response: ServerResponse, { status, mediaType, body }: Page): void {
  request.resume();
  response.writeHead(status, {
    "content-type": mediaType ?? "text/plain; charset=utf-8",
    "content-length": Buffer.byteLength(body),
    "cache-control": "no-store",
    ...(status === 405 && { allow: "GET, HEAD" }),
  });
  response.end(request.method === "HEAD" ? undefined : body);
}

function listen(server: Server, host: string, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) => reject(toListenError(error, host, port)));
    server.listen(port, host.replace(/^\[(.*)\]$/, "$1"), () => {
      const bound = server.address();
      resolve(typeof bound === "object" && bound !== null ? bound.port : port);
    });
  });
}

function toListenError(error: NodeJS.ErrnoException, host: string, port: number): StarlingError {
  if (error.code !== "EADDRINUSE") {
    return new StarlingError("CONFIG", `cannot listen on ${host}:${port} for HTTP: ${error.message}`, { cause: error });
  }
  const remedy = "stop the other program, or choose another port with http_listen (0 takes a free one)";
  return new StarlingError("ADDRESS_IN_USE", `HTTP port ${port} on ${host} is taken: ${remedy}`, { cause: error });
}

async function close(server: Server): Promise<void> {
  const timer = setTimeout(() => server.closeAllConnections(), closeWithinMs);
  await new Promise<void>((resolve) => {
    server.close(() => resolve());
    server.closeIdleConnections();
  });
  clearTimeout(timer);
}
