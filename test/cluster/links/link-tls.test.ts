import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Server } from "@grpc/grpc-js";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { startGrpcLinks } from "../../../cluster/links/grpc-links.ts";
import type { LinkLog } from "../../../cluster/links/link-options.ts";
import { type LinkSecurity, plainLinks, tlsLinks } from "../../../cluster/links/link-security.ts";
import { serverCredentials } from "../../../node/grpc/server-credentials.ts";
import { systemClock } from "../../../proto/clock.ts";
import { type NodeId, toNodeId } from "../../../proto/ids.ts";
import { openTlsFiles, type TlsFiles } from "../../../proto/tls-files.ts";
import {
  createAuthority,
  type IssueOptions,
  type TestAuthority,
  writeAuthorities,
  writeCertificate,
} from "../../support/test-authority.ts";
import { optionsOf, recordNews } from "./link-world.ts";
import type { LinkedNode } from "./links-contract.ts";

/* Two nodes, of which `a` dials. */

let folder = "";
let parties = 0;
let authority: TestAuthority;
let stranger: TestAuthority;
const closings: (() => Promise<void>)[] = [];
const hourMs = 3_600_000;
const timeout = 30_000;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "starling-link-tls-"));
  [authority, stranger] = await Promise.all([createAuthority(), createAuthority()]);
});

afterAll(async () => {
  for (const close of closings.splice(0).reverse()) await close();
  await rm(folder, { recursive: true });
});

interface RealNode extends LinkedNode {
  readonly address: string;
  /** What its links warned of. */
  readonly warnings: readonly string[];
}

interface Party {
  readonly from?: TestAuthority;
  readonly trusts?: TestAuthority;
  readonly certificate?: IssueOptions;
  /** Without certificates; default: with. */
  readonly plain?: boolean;
  /** Greets under another name than its own. */
  readonly says?: string;
}

async function openFiles(
  name: string,
  { from = authority, trusts = authority, certificate }: Party,
): Promise<TlsFiles> {
  const party = `${name}-${++parties}`;
  const ca = await writeAuthorities(join(folder, `${party}-ca.pem`), trusts);
  const own = await from.issue({ nodes: [name], hosts: [], ...certificate });
  const [cert = "", key = ""] = await writeCertificate(folder, party, own);
  // Its own look at its certificate is another test's.
  const wall = () => (certificate?.to ?? Date.now()) - hourMs;
  const files = await openTlsFiles({ ca, cert, key }, { clock: systemClock, wall });
  closings.push(async () => files.close());
  return files;
}

async function start(name: string, party: Party = {}): Promise<RealNode> {
  const files = party.plain === true ? null : await openFiles(name, party);
  const security: LinkSecurity =
    files === null ? plainLinks({ allowPlaintext: false }) : tlsLinks({ files, clusterName: "starling" });
  const server = new Server();
  const warnings: string[] = [];
  const log: LinkLog = {
    info: () => {},
    error: () => {},
    warn: (fields) => void warnings.push((fields as { problem: string }).problem),
  };
  const id = toNodeId(`${name}-1`);
  const self = () => ({ id, name: party.says ?? name, address: "" });
  const links = startGrpcLinks({ ...optionsOf(), log, self, clock: systemClock, security });
  links.addTo(server);
  const tls = files && { files, asksForCertificate: true, requiresCertificate: false };
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync("127.0.0.1:0", serverCredentials(tls), (error, bound) => (error ? reject(error) : resolve(bound)));
  });
  closings.push(async () => {
    await links.close();
    server.forceShutdown();
  });
  return { ...recordNews(id, links, systemClock.now), address: `127.0.0.1:${port}`, warnings };
}

function join2(a: RealNode, b: RealNode): void {
  a.links.connect([{ id: b.id, name: "b", address: b.address }]);
  b.links.connect([{ id: a.id, name: "a", address: a.address }]);
}

const until = (holds: () => boolean) => vi.waitUntil(holds, { timeout, interval: 10 });

/** Neither is linked, and one of them has said why. */
async function expectRefusal(a: RealNode, b: RealNode, why: RegExp): Promise<void> {
  join2(a, b);
  await until(() => a.news.some(({ kind }) => kind === "down"));
  expect([a.links.isUp(b.id), b.links.isUp(a.id)]).toEqual([false, false]);
  expect([...a.warnings, ...b.warnings].join("\n")).toMatch(why);
}

describe.concurrent("of two nodes", () => {
  it("nodes whose certificates hold their names are linked, wherever they are", async () => {
    const [a, b] = [await start("a"), await start("b")];
    join2(a, b);
    await until(() => a.links.isUp(b.id) && b.links.isUp(a.id));
    a.links.send(b.id, new TextEncoder().encode("hello"));
    await until(() => b.received.length > 0);
    expect(b.received.map(({ text }) => text)).toEqual(["hello"]);
  });

  it("a node of another authority is refused, whoever dials", async () => {
    const why = /no certificate that is trusted here: (UNABLE_TO|SELF_SIGNED)/;
    await Promise.all([
      expectRefusal(await start("a"), await start("b", { from: stranger }), /unable to (verify|get)|self.signed/),
      expectRefusal(await start("a", { from: stranger }), await start("b"), why),
    ]);
  });

  it("an expired certificate is refused, whoever dials", async () => {
    const expired = { certificate: { to: Date.now() - hourMs } };
    await Promise.all([
      expectRefusal(await start("a"), await start("b", expired), /expired/),
      expectRefusal(await start("a", expired), await start("b"), /CERT_HAS_EXPIRED/),
    ]);
  });

  it("the right authority with another node's identity is refused, whoever dials", async () => {
    const other = { certificate: { nodes: ["c"] } };
    const why = (name: string) => new RegExp(`not that of node ${name}: .*URI:starling://starling/node/c`);
    const foreign = { certificate: { nodes: ["a"], clusterName: "other" } };
    await Promise.all([
      expectRefusal(await start("a"), await start("b", other), why("b")),
      expectRefusal(await start("a", other), await start("b"), why("a")),
      expectRefusal(await start("a", foreign), await start("b"), /not that of node a: .*node\/a, and has .*other/),
    ]);
  });

  it("a node that greets under its own name, with the id of another one, is refused", async () => {
    const b = await start("b");
    const a = await start("a", { says: "c", certificate: { nodes: ["c"] } });
    join2(a, b);
    await until(() => /node a-1 is known as a, and calls itself c/.test(b.warnings.join("\n")));
    expect(b.links.isUp(a.id)).toBe(false);
  });

  it("a guest that came under another name than the cluster knows is let go", async () => {
    const b = await start("b");
    const a = await start("a", { says: "c", certificate: { nodes: ["c"] } });
    a.links.connect([{ id: b.id, name: "b", address: b.address }]);
    await until(() => b.links.isUp(a.id));
    b.links.connect([{ id: a.id, name: "a", address: a.address }]);
    await until(() => /known as a, and calls itself c/.test(b.warnings.join("\n")));
    expect(b.links.isUp(a.id)).toBe(false);
  });

  it("a node that talks plain text is refused, whoever dials", async () => {
    await Promise.all([
      expectRefusal(await start("a", { plain: true }), await start("b"), /broken|greet/),
      expectRefusal(await start("a"), await start("b", { plain: true }), /broken|greet/),
    ]);
  });
});

it("plain text is not dialled beyond loopback unless that is allowed", () => {
  const far = { id: toNodeId("b-1") as NodeId, name: "b", address: "192.0.2.1:4700" };
  const text =
    /node b at 192\.0\.2\.1:4700 would be dialled in plain text, beyond loopback: .*tls_cert.*allow_plaintext/;
  expect(() => plainLinks({ allowPlaintext: false }).dial(far)).toThrow(text);
  expect(plainLinks({ allowPlaintext: true }).dial(far).credentials._isSecure()).toBe(false);
});
