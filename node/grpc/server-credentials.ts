import { experimental, ServerCredentials } from "@grpc/grpc-js";
import type { TlsFiles, TlsMaterial } from "../../proto/tls-files.ts";

export interface ServerTls {
  readonly files: TlsFiles;
  /** Whether there are authorities by which certificates of those who call can be judged. */
  readonly asksForCertificate: boolean;
  /** Whether who has no good one is refused before it can call anything. */
  readonly requiresCertificate: boolean;
}

/** Plain text, or TLS whose new connections use what the files hold by then. */
export function serverCredentials(tls: ServerTls | null): ServerCredentials {
  if (tls === null) return ServerCredentials.createInsecure();
  const source = certificateSource(tls.files);
  const { asksForCertificate, requiresCertificate } = tls;
  return experimental.createCertificateProviderServerCredentials(
    // Null asks nobody for a certificate; the types of 1.14 forget that.
    asksForCertificate ? source : (null as never),
    source,
    requiresCertificate,
  );
}

/** The files as grpc-js wants them: it begins to watch before it listens to itself, so the first word comes a little later. */
function certificateSource(files: TlsFiles): experimental.CertificateProvider {
  const endings = new Map<unknown, () => void>();
  const add = <Update>(listener: (update: Update) => void, updateOf: (material: TlsMaterial) => Update): void => {
    const tell = () => listener(updateOf(files.value));
    endings.set(listener, files.onChange(tell));
    process.nextTick(tell);
  };
  const remove = (listener: unknown): void => {
    endings.get(listener)?.();
    endings.delete(listener);
  };
  return {
    addCaCertificateListener: (listener) => add(listener, ({ ca }) => ({ caCertificate: ca })),
    addIdentityCertificateListener: (listener) =>
      add(listener, ({ identity }) => identity && { certificate: identity.cert, privateKey: identity.key }),
    removeCaCertificateListener: remove,
    removeIdentityCertificateListener: remove,
  };
}
