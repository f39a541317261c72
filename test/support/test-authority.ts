import "reflect-metadata";
import { randomUUID } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import {
  BasicConstraintsExtension,
  type Extension,
  type JsonGeneralName,
  PemConverter,
  SubjectAlternativeNameExtension,
  X509CertificateGenerator,
} from "@peculiar/x509";
import { nodeIdentity } from "../../cluster/node-identity.ts";

/** An authority of a test, which issues certificates at once. */
export interface TestAuthority {
  /** PEM. */
  readonly cert: string;
  issue(options?: IssueOptions): Promise<TestCertificate>;
}

export interface TestCertificate {
  /** PEM. */
  readonly cert: string;
  readonly key: string;
}

export interface IssueOptions {
  /** Names of nodes that it speaks for. */
  readonly nodes?: readonly string[];
  readonly clusterName?: string;
  /** Default: those of loopback. */
  readonly hosts?: readonly string[];
  /** Unix milliseconds; default: from yesterday to tomorrow. */
  readonly from?: number;
  readonly to?: number;
}

const dayMs = 86_400_000;
const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };

/** Creates an authority: each has a key and a name of its own. */
export async function createAuthority(name = `Authority ${randomUUID()}`): Promise<TestAuthority> {
  const keys = await crypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const subject = `CN=${name}`;
  const root = await X509CertificateGenerator.createSelfSigned({
    ...{ name: subject, keys, signingAlgorithm: algorithm },
    notBefore: new Date(Date.now() - 2 * dayMs),
    notAfter: new Date(Date.now() + 2 * dayMs),
    extensions: [new BasicConstraintsExtension(true, undefined, true)],
  });
  return {
    cert: root.toString("pem"),
    issue: async (options = {}) => {
      const own = await crypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
      const issued = await X509CertificateGenerator.create({
        ...{ subject: "CN=test", issuer: subject, publicKey: own.publicKey, signingKey: keys.privateKey },
        signingAlgorithm: algorithm,
        notBefore: new Date(options.from ?? Date.now() - dayMs),
        notAfter: new Date(options.to ?? Date.now() + dayMs),
        extensions: namesOf(options),
      });
      const key = await crypto.subtle.exportKey("pkcs8", own.privateKey);
      return { cert: issued.toString("pem"), key: PemConverter.encode(key, "PRIVATE KEY") };
    },
  };
}

/** Files of one party; written again they are a renewal. */
export interface CertificateFiles {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

/** Writes `NAME.pem` and `NAME.key`. */
export async function writeCertificate(
  folder: string,
  name: string,
  { cert, key }: TestCertificate,
): Promise<string[]> {
  const files = [join(folder, `${name}.pem`), join(folder, `${name}.key`)];
  await Promise.all([writeFile(files[0] ?? "", `${cert}\n`), writeFile(files[1] ?? "", `${key}\n`)]);
  return files;
}

/** Writes a bundle of authorities. */
export async function writeAuthorities(file: string, ...authorities: readonly TestAuthority[]): Promise<string> {
  await writeFile(file, `${authorities.map(({ cert }) => cert).join("\n")}\n`);
  return file;
}

function namesOf({
  nodes = [],
  clusterName = "starling",
  hosts = ["localhost", "127.0.0.1", "::1"],
}: IssueOptions): Extension[] {
  const names: JsonGeneralName[] = [
    ...nodes.map((node) => ({ type: "url" as const, value: nodeIdentity(clusterName, node) })),
    ...hosts.map((host) => ({ type: /^[\d.]+$|:/.test(host) ? ("ip" as const) : ("dns" as const), value: host })),
  ];
  return names.length === 0 ? [] : [new SubjectAlternativeNameExtension(names)];
}
