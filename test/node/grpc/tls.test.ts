import { mkdtemp, rm } from "node:fs/promises";
import { connect as connectTcp, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect as connectTls } from "node:tls";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import type { GrpcServer } from "../../../node/grpc/server.ts";
import { connect } from "../../../proto/client.ts";
import { openCalls } from "../../../proto/client-calls.ts";
import type { ClientTls, ReachOptions } from "../../../proto/client-dialler.ts";
import { systemClock } from "../../../proto/clock.ts";
import { openTlsFiles, type TlsFiles } from "../../../proto/tls-files.ts";
import { createFakeEngine } from "../../support/fake-engine.ts";
import { startEdge } from "../../support/grpc-edge.ts";
import {
  createAuthority,
  type IssueOptions,
  type TestAuthority,
  writeAuthorities,
  writeCertificate,
} from "../../support/test-authority.ts";

let folder = "";
let authority: TestAuthority;
let stranger: TestAuthority;
let ca = "";
let strangerCa = "";
const closers: (() => unknown)[] = [];
const timeout = 30_000;
const hourMs = 3_600_000;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "starling-edge-tls-"));
  [authority, stranger] = await Promise.all([createAuthority(), createAuthority()]);
  ca = await writeAuthorities(join(folder, "ca.pem"), authority);
  strangerCa = await writeAuthorities(join(folder, "stranger.pem"), stranger);
});

afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

afterAll(() => rm(folder, { recursive: true }));

interface Secure {
  readonly server: GrpcServer;
  readonly files: TlsFiles;
}

async function startSecure(requiresCertificate = false, own: IssueOptions = {}): Promise<Secure> {
  const [cert = "", key = ""] = await writeCertificate(folder, "node", await authority.issue(own));
  const wall = () => (own.to ?? Date.now()) - hourMs;
  const files = await openTlsFiles({ ca, cert, key }, { clock: systemClock, wall, everyMs: 20 });
  closers.push(() => files.close());
  const tls = { files, asksForCertificate: true, requiresCertificate };
  const server = await startEdge(createFakeEngine(), { tls });
  closers.push(() => server.close());
  return { server, files };
}

async function clientFiles(from: TestAuthority, name: string, options: IssueOptions = {}): Promise<ClientTls> {
  const [cert = "", key = ""] = await writeCertificate(folder, name, await from.issue({ hosts: [], ...options }));
  return { ca, cert, key };
}

/** What a node says of itself. */
async function ask(address: string, reach: ReachOptions): Promise<string> {
  await using calls = await openCalls({ address, connectMs: 5_000, ...reach });
  return (await calls.admin.status()).state;
}

/** Sends one datapoint in a session. */
async function sendOne(address: string, reach: ReachOptions): Promise<number> {
  await using client = await connect({ address, connectMs: 5_000, ...reach });
  return (await client.send([{ type: "thing", eid: "e", attr: "name", v: "x" }])).accepted;
}

test("a client that trusts the node's authority is served, with or without a certificate of its own", async () => {
  const { server } = await startSecure();
  expect(await ask(server.address, { tls: { ca } })).toBe("serving");
  expect(await sendOne(server.address, { tls: { ca } })).toBe(1);
  expect(await ask(server.address, { tls: await clientFiles(authority, "client") })).toBe("serving");
});

test("a client refuses a node of another authority, one that has expired, and one at another name", async () => {
  const { server } = await startSecure();
  const refused = (tls: ClientTls, address = server.address) => ask(address, { tls }).catch(String);
  expect(await refused({ ca: strangerCa })).toMatch(/no node answered: .*(unable to|self.signed)/);
  const expired = await startSecure(false, { to: Date.now() - hourMs });
  expect(await refused({ ca }, expired.server.address)).toMatch(/certificate has expired/);
  const elsewhere = await startSecure(false, { hosts: ["localhost"] });
  expect(await refused({ ca }, elsewhere.server.address)).toMatch(/IP: 127\.0\.0\.1 is not in the cert's list/);
  const byName = elsewhere.server.address.replace("127.0.0.1", "localhost");
  expect(await ask(byName, { tls: { ca } })).toBe("serving");
});

test("where certificates are required, who has none, a foreign or an expired one cannot even connect", async () => {
  const { server } = await startSecure(true);
  const refused = (tls: ClientTls) => ask(server.address, { tls }).catch(String);
  expect(await refused({ ca })).toMatch(/no node answered/);
  expect(await refused(await clientFiles(stranger, "foreign"))).toMatch(/no node answered/);
  expect(await refused(await clientFiles(authority, "good"))).toBe("serving");
});

test("plain text and TLS do not understand each other", async () => {
  const { server } = await startSecure();
  expect(await ask(server.address, {}).catch(String)).toMatch(/no node answered/);
  const plain = await startEdge(createFakeEngine());
  closers.push(() => plain.close());
  expect(await ask(plain.address, { tls: { ca } }).catch(String)).toMatch(/no node answered/);
});

test("plain text does not leave loopback unless that is allowed, and a token not even then", async () => {
  const address = "192.0.2.1:4700";
  const refused = (reach: ReachOptions) =>
    openCalls({ address, connectMs: 300, ...reach }).then(
      () => null,
      (error: unknown) => error,
    );
  expect(await refused({})).toMatchObject({
    code: "INVALID_ARGUMENT",
    message: expect.stringMatching(/192\.0\.2\.1:4700: a connection in plain text stays on loopback: .*--tls-ca/),
  });
  expect(await refused({ allowPlaintext: true, token: "t" })).toMatchObject({ code: "INVALID_ARGUMENT" });
  await expect(connect({ address, token: "t" })).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
});

test("a node is reached at the address that it listens on, and at no other of the machine", async () => {
  const server = await startEdge(createFakeEngine());
  closers.push(() => server.close());
  const port = Number(server.address.split(":")[1]);
  const reach = (host: string): Promise<unknown> =>
    new Promise((resolve) => {
      const socket = connectTcp({ host, port });
      closers.push(() => socket.destroy());
      socket.once("connect", () => resolve("connected"));
      socket.once("error", (error: NodeJS.ErrnoException) => resolve(error.code));
    });
  expect(await reach("127.0.0.1")).toBe("connected");
  expect(await reach("::1")).toMatch(/^E(CONNREFUSED|ADDRNOTAVAIL)$/);
});

/** The end of the certificate that a node shows now. */
function shownUntil(address: string): Promise<number> {
  const [host, port] = address.split(":");
  return new Promise((resolve, reject) => {
    const options = { host, port: Number(port), rejectUnauthorized: false, ALPNProtocols: ["h2"] };
    const socket: Socket & { getPeerCertificate(): { valid_to: string } } = connectTls(options, () => {
      resolve(Date.parse(socket.getPeerCertificate().valid_to));
      socket.destroy();
    });
    socket.once("error", reject);
  });
}

test("a renewed certificate is shown to new connections, and those that are open go on", async () => {
  const { server } = await startSecure();
  const tls = await clientFiles(authority, "lasting");
  const breaks: string[] = [];
  const onBreak = ({ message }: Error) => void breaks.push(message);
  await using client = await connect({ address: server.address, tls, onBreak });
  const first = await shownUntil(server.address);
  const to = Date.now() + 7 * 24 * hourMs;
  await writeCertificate(folder, "node", await authority.issue({ to }));
  await expect.poll(() => shownUntil(server.address), { timeout }).toBeGreaterThan(first);
  expect((await client.send([{ type: "thing", eid: "e", attr: "name", v: "y" }])).accepted).toBe(1);
  expect(breaks).toEqual([]);
});

test("a new authority counts for new connections, and the former one no longer", async () => {
  const { server, files } = await startSecure(true);
  const [former, next] = [await clientFiles(authority, "former"), await clientFiles(stranger, "next")];
  expect(await ask(server.address, { tls: former })).toBe("serving");
  const bundle = join(folder, "ca.pem");
  await writeAuthorities(bundle, authority, stranger);
  await files.reload();
  expect(await ask(server.address, { tls: next })).toBe("serving");
  expect(await ask(server.address, { tls: former })).toBe("serving");
  await writeAuthorities(bundle, stranger);
  await files.reload();
  // The clients go on trusting both.
  const both = await writeAuthorities(join(folder, "both.pem"), authority, stranger);
  expect(await ask(server.address, { tls: { ...next, ca: both } })).toBe("serving");
  expect(await ask(server.address, { tls: { ...former, ca: both } }).catch(String)).toMatch(/no node answered/);
  await writeAuthorities(bundle, authority);
});
