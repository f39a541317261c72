import { mkdtemp, rm } from "node:fs/promises";
import { request } from "node:http";
import { get as getByTls } from "node:https";
import { createConnection } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { afterEach, expect, onTestFinished, test } from "vitest";
import { type HttpServer, startHttpServer } from "../../../node/http/http-server.ts";
import { systemClock } from "../../../proto/clock.ts";
import { openTlsFiles, type TlsFiles } from "../../../proto/tls-files.ts";
import { createAuthority, writeCertificate } from "../../support/test-authority.ts";

const opened: HttpServer[] = [];
const logged: string[] = [];

afterEach(async () => {
  for (const server of opened.splice(0)) await server.close();
});

async function start(port = 0, tls: TlsFiles | null = null): Promise<HttpServer> {
  const server = await startHttpServer({
    host: "127.0.0.1",
    ...{ port, tls },
    pages: {
      "/here": () => ({ status: 200, body: "it is here\n" }),
      "/broken": () => Promise.reject(new Error("broken")),
    },
    log: { error: (_, message) => void logged.push(message) },
  });
  opened.push(server);
  return server;
}

const get = async (server: HttpServer, path: string, init: RequestInit = {}) => {
  const response = await fetch(`http://${server.address}${path}`, init);
  return { status: response.status, body: await response.text(), allow: response.headers.get("allow") };
};

test("a page is answered to GET and HEAD, whatever the query says", async () => {
  const server = await start();
  expect(await get(server, "/here?a=b")).toEqual({ status: 200, body: "it is here\n", allow: null });
  expect(await get(server, "/here", { method: "HEAD" })).toEqual({ status: 200, body: "", allow: null });
});

test("another path is 404 and says what there is; another method is 405", async () => {
  const server = await start();
  expect(await get(server, "/there")).toMatchObject({ status: 404, body: "there is /here, /broken\n" });
  expect(await get(server, "/here", { method: "POST", body: "x" })).toMatchObject({ status: 405, allow: "GET, HEAD" });
});

test("a page that cannot be made is 500, and logged", async () => {
  const server = await start();
  expect((await get(server, "/broken")).status).toBe(500);
  expect(logged).toContain("a page could not be made: this is a bug");
});

test("headers above 8 KiB are refused", async () => {
  const server = await start();
  expect((await get(server, "/here", { headers: { long: "x".repeat(9_000) } })).status).toBe(431);
});

test("a port that is taken is named, with what to do", async () => {
  const first = await start();
  const port = Number(first.address.split(":")[1]);
  await expect(start(port)).rejects.toMatchObject({
    code: "ADDRESS_IN_USE",
    message: expect.stringMatching(new RegExp(`HTTP port ${port} on 127.0.0.1 is taken: .*http_listen`)),
  });
});

test("by TLS new connections get the certificate that the files hold by then", async () => {
  const folder = await mkdtemp(join(tmpdir(), "starling-http-tls-"));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  const [first, second] = [await createAuthority(), await createAuthority()];
  const [cert = "", key = ""] = await writeCertificate(folder, "node", await first.issue());
  const files = await openTlsFiles({ ca: null, cert, key }, { clock: systemClock, wall: Date.now });
  onTestFinished(() => files.close());
  const server = await start(0, files);
  const askBy = ({ cert: ca }: { readonly cert: string }): Promise<string> =>
    new Promise((resolve, reject) => {
      const asked = getByTls(`https://${server.address}/here`, { ca, agent: false }, (answer) => resolve(text(answer)));
      asked.once("error", reject);
    });
  expect(await askBy(first)).toBe("it is here\n");
  await expect(askBy(second)).rejects.toThrow();
  await writeCertificate(folder, "node", await second.issue());
  await files.reload();
  expect(await askBy(second)).toBe("it is here\n");
  await expect(fetch(`http://${server.address}/here`)).rejects.toThrow();
});

test("its end waits for no idle connection, nor for one that never asks", async () => {
  const server = await start();
  const [host = "", port = ""] = server.address.split(":");
  const silent = createConnection(Number(port), host);
  silent.on("error", () => {});
  await new Promise<void>((resolve) => {
    request({ host, port, path: "/here", agent: false, headers: { connection: "keep-alive" } }, (response) => {
      response.resume().once("end", resolve);
    }).end();
  });
  await server.close();
  await expect(fetch(`http://${server.address}/here`)).rejects.toThrow();
  silent.destroy();
});
