import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { systemClock } from "../../proto/clock.ts";
import { openTlsFiles, type TlsFiles } from "../../proto/tls-files.ts";
import { createAuthority, type TestAuthority, writeAuthorities, writeCertificate } from "../support/test-authority.ts";

let folder = "";
let authority: TestAuthority;
let ca = "";
let cert = "";
let key = "";
const dayMs = 86_400_000;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "starling-tls-"));
  authority = await createAuthority();
  ca = await writeAuthorities(join(folder, "ca.pem"), authority);
  [cert = "", key = ""] = await writeCertificate(folder, "own", await authority.issue({ nodes: ["ada"] }));
});

afterAll(() => rm(folder, { recursive: true }));

async function open(paths: Partial<Record<"ca" | "cert" | "key", string | null>>, wall = Date.now): Promise<TlsFiles> {
  const files = await openTlsFiles({ ca, cert, key, ...paths }, { clock: systemClock, wall });
  files.close();
  return files;
}

it("a certificate is read with its names and its end", async () => {
  const { value } = await open({});
  expect(value.identity?.altNames).toContain("URI:starling://starling/node/ada");
  expect(value.identity?.expiresAt).toBeGreaterThan(Date.now());
});

it("authorities alone are enough for who only dials", async () => {
  expect((await open({ cert: null, key: null })).value.identity).toBeNull();
});

it("what cannot be used is named: the file and why", async () => {
  const other = await writeCertificate(folder, "other", await authority.issue());
  const nonsense = join(folder, "nonsense.pem");
  await writeFile(nonsense, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
  const missing = join(folder, "missing.pem");
  await expect(open({ cert: missing })).rejects.toThrow(`${missing} cannot be read`);
  await expect(open({ cert: nonsense })).rejects.toThrow(`${nonsense} holds no certificate`);
  await expect(open({ ca: key })).rejects.toThrow(`${key} holds no certificate`);
  await expect(open({ ca: nonsense })).rejects.toThrow(`${nonsense} holds no certificate`);
  await expect(open({ key: other[1] ?? "" })).rejects.toThrow(/TLS cannot use .*other\.key: .*mismatch/);
  await expect(open({ key: null })).rejects.toThrow("go together");
  await expect(open({}, () => Date.now() + 2 * dayMs)).rejects.toThrow(`${cert} has expired`);
  await expect(open({}, () => Date.now() - 2 * dayMs)).rejects.toThrow(`${cert} is not valid before`);
});
