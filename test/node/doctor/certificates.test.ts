import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { type Settings, settingsSchema } from "../../../node/config/settings.ts";
import { judgeCertificates, readCertificates } from "../../../node/doctor/certificate-findings.ts";
import {
  createAuthority,
  type TestAuthority,
  writeAuthorities,
  writeCertificate,
} from "../../support/test-authority.ts";

/* What the doctor says of certificates, in real files. */

const dayMs = 86_400_000;
const farMs = Date.now() + 100 * dayMs;
let folder = "";
let authority: TestAuthority;
let ca = "";

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "starling-doctor-tls-"));
  authority = await createAuthority("Ours");
  ca = await writeAuthorities(join(folder, "ca.pem"), authority);
});

afterAll(() => rm(folder, { recursive: true, force: true }));

/** Files of a certificate; the key is its owner's alone. */
async function issue(name: string, options: Parameters<TestAuthority["issue"]>[0], by = authority) {
  const [tlsCert = "", tlsKey = ""] = await writeCertificate(folder, name, await by.issue(options));
  await chmod(tlsKey, 0o600);
  return { tlsCa: ca, tlsCert, tlsKey };
}

async function complaints(change: Partial<Settings>, nowMs = Date.now()): Promise<string[]> {
  const settings = { ...settingsSchema.parse({}), name: "ada", etcd: ["e"], ...change };
  const findings = judgeCertificates(await readCertificates(settings), { settings, nowMs });
  return findings
    .filter(({ status }) => status !== "ok")
    .map(({ status, check, found }) => `${status} ${check}: ${found}`);
}

/** The authority of the tests lives for two days. */
const shortAuthority = expect.stringMatching(/^warning tls_ca: CN=Ours: expires in 1 days/);

it("a good certificate has no complaint, and one that ends within thirty days a warning", async () => {
  const good = await issue("good", { nodes: ["ada"], to: farMs });
  expect(await complaints(good)).toEqual([shortAuthority]);
  const short = await issue("short", { nodes: ["ada"], to: Date.now() + 29 * dayMs });
  expect(await complaints(short)).toContainEqual(
    expect.stringMatching(/^warning tls_cert: CN=test: expires in 2\d days/),
  );
});

it("one that has expired, or is not valid yet, is a problem", async () => {
  const files = await issue("dated", { nodes: ["ada"], to: farMs });
  expect(await complaints(files, farMs + dayMs)).toEqual([
    expect.stringMatching(/^problem tls_cert: CN=test: expired /),
    expect.stringMatching(/^problem tls_ca: CN=Ours: expired /),
  ]);
  expect(await complaints(files, Date.now() - 30 * dayMs)).toContainEqual(
    expect.stringMatching(/^problem tls_cert: CN=test: not valid before /),
  );
});

it("another node's, another authority's, and another key are each named", async () => {
  expect(await complaints(await issue("bob", { nodes: ["bob"], to: farMs }))).toContainEqual(
    expect.stringMatching(/^problem identity: .*not that of node ada/),
  );
  const foreign = await issue("foreign", { nodes: ["ada"], to: farMs }, await createAuthority());
  expect(await complaints(foreign)).toContainEqual("problem issuer: no authority in tls_ca issued tls_cert");
  const { tlsKey } = await issue("other", { nodes: ["ada"], to: farMs });
  const mixed = { ...(await issue("mixed", { nodes: ["ada"], to: farMs })), tlsKey };
  expect(await complaints(mixed)).toContainEqual("problem tls_key: tls_key is not the key of tls_cert");
});

it("an address that the certificate does not hold, and a key that everyone may read, are warnings", async () => {
  const files = await issue("hosts", { nodes: ["ada"], to: farMs, hosts: ["db.example.org"] });
  await chmod(files.tlsKey, 0o644);
  expect(await complaints({ ...files, advertise: "ada.example.org:4700" })).toEqual(
    expect.arrayContaining([
      expect.stringMatching(/^warning host: the certificate does not hold ada\.example\.org: /),
      "warning tls_key: every account may use the file",
    ]),
  );
});

it("files that are missing or hold something else are named", async () => {
  const junk = join(folder, "junk.pem");
  await writeFile(junk, "junk");
  const said = await complaints({ tlsCa: junk, tlsCert: join(folder, "none.pem"), tlsKey: junk });
  expect(said).toEqual(
    expect.arrayContaining([
      expect.stringMatching(/^problem tls_ca: .*junk\.pem: it holds no certificate in PEM/),
      expect.stringMatching(/^problem tls_cert: .*none\.pem: ENOENT/),
      expect.stringMatching(/^problem tls_key: .*junk\.pem: /),
    ]),
  );
});

it("plain text is fine on loopback, and a warning beyond", async () => {
  expect(await complaints({})).toEqual([]);
  expect(await complaints({ listen: "0.0.0.0:4700", allowPlaintext: true })).toEqual([
    expect.stringMatching(/^warning tls: plain text on 0\.0\.0\.0:4700/),
  ]);
});
