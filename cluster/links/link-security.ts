import { type ChannelCredentials, type ChannelOptions, credentials } from "@grpc/grpc-js";
import { isLoopback } from "../../proto/loopback.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import type { TlsFiles } from "../../proto/tls-files.ts";
import { describeForeign, nodesOfCertificate } from "../node-identity.ts";
import { certificateOf, type ServedCall } from "./call-certificate.ts";
import type { Peer } from "./links.ts";

/** How nodes know that they talk to nodes. */
export interface LinkSecurity {
  /** What a peer is dialled with. Raises UNAUTHENTICATED where it must not be dialled. */
  dial(peer: Peer): { readonly credentials: ChannelCredentials; readonly options: ChannelOptions };
  /** Why whoever calls is not the node of this name; null: nothing speaks against it. */
  judgeCaller(call: ServedCall, name: string): StarlingError | null;
}

/** Plain text: on loopback, and elsewhere if that is allowed by name. */
export function plainLinks({ allowPlaintext }: { readonly allowPlaintext: boolean }): LinkSecurity {
  return {
    dial: ({ name, address }) => {
      if (allowPlaintext || isLoopback(address)) return { credentials: credentials.createInsecure(), options: {} };
      const remedy = "give the nodes certificates (tls_cert, tls_key, tls_ca), or set allow_plaintext";
      const text = `node ${name} at ${address} would be dialled in plain text, beyond loopback: ${remedy}`;
      throw new StarlingError("UNAUTHENTICATED", text);
    },
    judgeCaller: () => null,
  };
}

export interface TlsLinkOptions {
  readonly files: TlsFiles;
  /** As in the certificates. */
  readonly clusterName: string;
}

/** Mutual TLS: both ends show a certificate of the cluster's authority that holds their name. Hosts do not matter. */
export function tlsLinks({ files, clusterName }: TlsLinkOptions): LinkSecurity {
  const problemOf = (altNames: string, name: string): StarlingError | null =>
    nodesOfCertificate(altNames, clusterName).has(name)
      ? null
      : new StarlingError("UNAUTHENTICATED", describeForeign(altNames, clusterName, name));
  return {
    dial: ({ name }) => ({
      credentials: credentials.createFromSecureContext(files.value.context, {
        checkServerIdentity: (_host, { subjectaltname = "" }) => problemOf(subjectaltname, name) ?? undefined,
      }),
      // An address is no name that TLS may ask for.
      options: { "grpc.ssl_target_name_override": "starling" },
    }),
    judgeCaller: (call, name) => {
      const certificate = certificateOf(call);
      if (certificate.kind === "valid") return problemOf(certificate.altNames, name);
      const why = certificate.kind === "none" ? "it shows none" : certificate.reason;
      return new StarlingError("UNAUTHENTICATED", `node ${name} has no certificate that is trusted here: ${why}`);
    },
  };
}
