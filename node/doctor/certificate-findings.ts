import { createPrivateKey, X509Certificate } from "node:crypto";
import { readFile, stat } from "node:fs/promises";
import { isIP } from "node:net";
import { describeForeign, nodesOfCertificate } from "../../cluster/node-identity.ts";
import { isLoopback } from "../../proto/loopback.ts";
import { toStarlingError } from "../../proto/starling-error.ts";
import type { Settings } from "../config/settings.ts";
import { splitAddress } from "./address-findings.ts";
import { createReport, type Finding, type Report } from "./finding.ts";

/** What the files of `tls_ca`, `tls_cert` and `tls_key` hold. */
export interface CertificateFacts {
  /** Files that cannot be used, and why. */
  readonly broken: readonly { readonly setting: string; readonly path: string; readonly reason: string }[];
  readonly own: CertificateSeen | null;
  /** Null: not named. */
  readonly authorities: readonly CertificateSeen[] | null;
  /** Null: one of both cannot be read. */
  readonly keyFits: boolean | null;
  /** Others than the account of the node may read it. */
  readonly keyIsOpen: boolean;
  /** Whether one of the authorities issued the own certificate, or an issuer in its file; null: one of them is missing. */
  readonly isIssued: boolean | null;
}

export interface CertificateSeen {
  readonly subject: string;
  /** As `X509Certificate.subjectAltName` writes them. */
  readonly altNames: string;
  /** Unix milliseconds. */
  readonly fromMs: number;
  readonly toMs: number;
  /** Whether it holds the host name or the address. */
  speaksFor(host: string): boolean;
}

type Paths = Pick<Settings, "tlsCa" | "tlsCert" | "tlsKey">;

const othersRead = 0o007;

/** Reads the files. Never raises: what cannot be used is part of the answer. */
export async function readCertificates({ tlsCa, tlsCert, tlsKey }: Paths): Promise<CertificateFacts> {
  const broken: { setting: string; path: string; reason: string }[] = [];
  const use = async <T>(setting: string, path: string | null, parse: (pem: string) => T): Promise<T | null> => {
    if (path === null) return null;
    try {
      return parse(await readFile(path, "latin1"));
    } catch (error) {
      broken.push({ setting, path, reason: toStarlingError(error).message });
      return null;
    }
  };
  const [authorities, chain, key, mode] = await Promise.all([
    use("tls_ca", tlsCa, parseCertificates),
    use("tls_cert", tlsCert, parseCertificates),
    use("tls_key", tlsKey, (pem) => createPrivateKey(pem)),
    tlsKey === null
      ? 0
      : stat(tlsKey).then(
          (about) => about.mode,
          () => 0, // that it cannot be read is said above
        ),
  ]);
  const own = chain?.[0] ?? null;
  return {
    broken,
    own: own === null ? null : seen(own),
    authorities: authorities?.map(seen) ?? null,
    keyFits: own === null || key === null ? null : own.checkPrivateKey(key),
    keyIsOpen: (mode & othersRead) !== 0,
    isIssued: chain === null || authorities === null ? null : isIssuedBy(chain, authorities),
  };
}

function parseCertificates(pem: string): readonly X509Certificate[] {
  const found = pem.match(/-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----/g) ?? [];
  if (found.length === 0) throw new Error("it holds no certificate in PEM");
  return found.map((one) => new X509Certificate(one));
}

/** The file of a certificate may hold its issuers, up to one that an authority has issued. */
function isIssuedBy(chain: readonly X509Certificate[], authorities: readonly X509Certificate[]): boolean {
  for (const [index, one] of chain.entries()) {
    if (authorities.some((authority) => one.checkIssued(authority) && one.verify(authority.publicKey))) return true;
    const next = chain[index + 1];
    if (next === undefined || !one.checkIssued(next) || !one.verify(next.publicKey)) return false;
  }
  return false;
}

function seen(certificate: X509Certificate): CertificateSeen {
  const { subject, subjectAltName, validFrom, validTo } = certificate;
  return {
    subject: subject.replaceAll("\n", ", "),
    altNames: subjectAltName ?? "",
    fromMs: Date.parse(validFrom),
    toMs: Date.parse(validTo),
    speaksFor: (host) => (isIP(host) > 0 ? certificate.checkIP(host) : certificate.checkHost(host)) !== undefined,
  };
}

export interface CertificateExpectation {
  readonly settings: Pick<
    Settings,
    "tlsCert" | "allowPlaintext" | "listen" | "advertise" | "etcd" | "name" | "clusterName"
  >;
  /** Unix milliseconds. */
  readonly nowMs: number;
}

const dayMs = 86_400_000;
const soonDays = 30;
const reload = "nodes read the files again by themselves";

/** Judges what the files hold; without TLS, whether plain text gets further than this machine. */
export function judgeCertificates(facts: CertificateFacts, expectation: CertificateExpectation): readonly Finding[] {
  const { settings, nowMs } = expectation;
  const report = createReport("certificates");
  if (settings.tlsCert === null) {
    judgePlaintext(report, settings);
    return report.findings;
  }
  for (const { setting, path, reason } of facts.broken) {
    const remedy = `mend the file, or name another one in \`${setting}\`; the account of the node has to be able to read it`;
    report.problem(setting, { found: `${path}: ${reason}`, expected: "a file in PEM", remedy });
  }
  if (facts.own !== null) {
    judgeValidity(report, "tls_cert", facts.own, nowMs);
    judgeNames(report, facts.own, settings);
  }
  judgeKey(report, facts);
  for (const authority of facts.authorities ?? []) judgeValidity(report, "tls_ca", authority, nowMs);
  if (facts.isIssued === false) {
    report.problem("issuer", {
      found: "no authority in tls_ca issued tls_cert",
      expected: "a certificate that the other nodes trust",
      remedy: "add the authority to `tls_ca` on all nodes, or the issuers in between to the file of `tls_cert`",
    });
  }
  return report.findings;
}

function judgePlaintext(report: Report, { listen }: CertificateExpectation["settings"]): void {
  if (isLoopback(listen)) return report.ok("tls", "none: plain text, on this machine only");
  report.warning("tls", {
    found: `plain text on ${listen}: whoever is on the way reads and changes it`,
    expected: "certificates where others can reach the node",
    remedy: "set `tls_cert`, `tls_key` and `tls_ca`, unless the network is your own",
  });
}

function judgeValidity(report: Report, check: string, { subject, fromMs, toMs }: CertificateSeen, nowMs: number): void {
  const until = new Date(toMs).toISOString();
  const days = Math.floor((toMs - nowMs) / dayMs);
  const remedy = `put a newer one in its place: ${reload}`;
  if (fromMs > nowMs) {
    const found = `${subject}: not valid before ${new Date(fromMs).toISOString()}`;
    report.problem(check, {
      found,
      expected: "a certificate that is valid now",
      remedy: "is this machine's clock right?",
    });
  } else if (toMs <= nowMs) {
    report.problem(check, { found: `${subject}: expired ${until}`, expected: "a certificate that is valid", remedy });
  } else if (days < soonDays) {
    const found = `${subject}: expires in ${days} days, ${until}`;
    report.warning(check, { found, expected: `${soonDays} days or more`, remedy });
  } else report.ok(check, `${subject}: valid until ${until}`);
}

function judgeNames(report: Report, own: CertificateSeen, settings: CertificateExpectation["settings"]): void {
  const { name, etcd, clusterName, advertise, listen } = settings;
  if (etcd !== null && name !== null) {
    if (nodesOfCertificate(own.altNames, clusterName).has(name)) report.ok("identity", `node ${name}`);
    else {
      const found = describeForeign(own.altNames, clusterName, name);
      const remedy = "have it issued with that name, or correct `name` or `cluster_name`";
      report.problem("identity", { found, expected: "the node's name: others refuse its links without", remedy });
    }
  }
  const { host } = splitAddress(advertise ?? listen);
  if (/^(0\.0\.0\.0|::)$/.test(host) || own.speaksFor(host)) return;
  report.warning("host", {
    found: `the certificate does not hold ${host}: ${own.altNames === "" ? "no names" : own.altNames}`,
    expected: "the address that clients name, which they check",
    remedy: "have it issued with that name too, or set `advertise` to one that it has",
  });
}

function judgeKey(report: Report, { keyFits, keyIsOpen }: CertificateFacts): void {
  if (keyFits === false) {
    const found = "tls_key is not the key of tls_cert";
    const remedy = "name the key that the certificate was issued for";
    report.problem("tls_key", { found, expected: "a certificate with its key", remedy });
  } else if (keyFits === true && !keyIsOpen) report.ok("tls_key", "the key of tls_cert");
  if (!keyIsOpen) return;
  const remedy = "chmod o-rwx FILE, and give it to the account of the node";
  report.warning("tls_key", { found: "every account may use the file", expected: "the node's account alone", remedy });
}
