import { X509Certificate } from "node:crypto";
import { readFile } from "node:fs/promises";
import { createSecureContext, rootCertificates, type SecureContext } from "node:tls";
import type { Clock } from "./clock.ts";
import { StarlingError } from "./starling-error.ts";
import { type WatchedFiles, type WatchOptions, watchFiles } from "./watched-files.ts";

/** PEM files. Each may hold several certificates: `ca` all that are trusted, `cert` the own one and then its issuers. */
export interface TlsPaths {
  /** Null: the certificate authorities that Node.js brings. */
  readonly ca: string | null;
  /** With its key, or neither. */
  readonly cert: string | null;
  readonly key: string | null;
}

/** What the files held when they were read last. */
export interface TlsMaterial {
  /** Certificate authorities, PEM. */
  readonly ca: Buffer;
  readonly identity: TlsIdentity | null;
  /** For a connection that begins now. */
  readonly context: SecureContext;
}

export interface TlsIdentity {
  readonly cert: Buffer;
  readonly key: Buffer;
  /** Names in the certificate, as `X509Certificate.subjectAltName` writes them; empty if there are none. */
  readonly altNames: string;
  /** Unix milliseconds. */
  readonly expiresAt: number;
}

/** Certificates that are read again when their files change. */
export type TlsFiles = WatchedFiles<TlsMaterial>;

export interface TlsWorld extends Pick<WatchOptions<TlsMaterial>, "onProblem" | "everyMs"> {
  readonly clock: Clock;
  /** Unix milliseconds. */
  readonly wall: () => number;
  /** Raises what is wrong with what was read, beyond what TLS itself wants. */
  readonly check?: (material: TlsMaterial) => void;
}

/**
 * Reads certificates and watches their files. Raises CONFIG, which names the file, for one that cannot be read, is no PEM,
 * has expired or is not valid yet, and for a key that does not fit its certificate.
 */
export function openTlsFiles(paths: TlsPaths, world: TlsWorld): Promise<TlsFiles> {
  const files = [paths.ca, paths.cert, paths.key].filter((path) => path !== null);
  const read = async (): Promise<TlsMaterial> => {
    const material = await readMaterial(paths, world.wall());
    world.check?.(material);
    return material;
  };
  return watchFiles({ ...world, paths: files, read });
}

async function readMaterial({ ca: caPath, cert, key }: TlsPaths, nowMs: number): Promise<TlsMaterial> {
  if ((cert === null) !== (key === null)) {
    throw new StarlingError("CONFIG", `a certificate and its key go together: found ${cert ?? key} alone`);
  }
  const ca = caPath === null ? Buffer.from(rootCertificates.join("\n")) : await readPem(caPath);
  if (caPath !== null) for (const one of certificatesOf(ca)) parseCertificate(caPath, one);
  const identity = cert === null || key === null ? null : await readIdentity(cert, key, nowMs);
  try {
    const context = createSecureContext({ ca, ...(identity && { cert: identity.cert, key: identity.key }) });
    return { ca, identity, context };
  } catch (cause) {
    const files = [caPath, cert, key].filter((path) => path !== null).join(", ");
    throw new StarlingError("CONFIG", `TLS cannot use ${files}: ${textOf(cause)}`, { cause });
  }
}

async function readIdentity(certPath: string, keyPath: string, nowMs: number): Promise<TlsIdentity> {
  const [cert, key] = await Promise.all([readPem(certPath), readPem(keyPath)]);
  const own = parseCertificate(certPath, certificatesOf(cert)[0] ?? "");
  const { validFrom, validTo } = own;
  if (Date.parse(validTo) <= nowMs) throw new StarlingError("CONFIG", `${certPath} has expired: valid to ${validTo}`);
  if (Date.parse(validFrom) > nowMs) {
    throw new StarlingError("CONFIG", `${certPath} is not valid before ${validFrom}: is the clock right?`);
  }
  return { cert, key, altNames: own.subjectAltName ?? "", expiresAt: Date.parse(validTo) };
}

async function readPem(path: string): Promise<Buffer> {
  try {
    return await readFile(path);
  } catch (cause) {
    throw new StarlingError("CONFIG", `${path} cannot be read: ${textOf(cause)}`, { cause });
  }
}

function certificatesOf(pem: Buffer): string[] {
  const found = pem.toString("latin1").match(/-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----/g);
  return found ?? [""];
}

function parseCertificate(path: string, pem: string): X509Certificate {
  try {
    return new X509Certificate(pem);
  } catch (cause) {
    throw new StarlingError("CONFIG", `${path} holds no certificate in PEM`, { cause });
  }
}

function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
