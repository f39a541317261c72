import { isIP } from "node:net";
import { checkServerIdentity } from "node:tls";
import { type ChannelOptions, credentials } from "@grpc/grpc-js";
import { type Dialled, dial } from "./client-call.ts";
import type { Clock } from "./clock.ts";
import { hostOf, isLoopback } from "./loopback.ts";
import { StarlingError } from "./starling-error.ts";
import { openTlsFiles, type TlsFiles } from "./tls-files.ts";

/** PEM files; they are read again when they change, and connections from then on use them. */
export interface ClientTls {
  /** Authorities that are trusted; without it those that Node.js brings. */
  readonly ca?: string;
  /** The client's own certificate, for nodes that ask for one; with `key`. */
  readonly cert?: string;
  readonly key?: string;
}

/** How nodes are reached. */
export interface ReachOptions {
  /** Without it plain text, on loopback only. */
  readonly tls?: ClientTls;
  /** Plain text may go beyond loopback. A token never does. */
  readonly allowPlaintext?: boolean;
  /** Says who calls, as `starling token new` printed it. */
  readonly token?: string;
}

/** Makes connections to nodes, all in one way. */
export interface Dialler {
  /** Whether a node may be reached there: plain text stays on loopback. */
  allows(address: string): boolean;
  /** Makes a connection; nothing travels before the first call. */
  dial(address: string): Dialled;
  /** Called when there are new certificates. Returns the unsubscribing. */
  onChange(listener: () => void): () => void;
  close(): void;
}

export interface DiallerOptions extends ReachOptions {
  /** What the user names. */
  readonly addresses: readonly string[];
  readonly clock: Clock;
}

/** Raises INVALID_ARGUMENT for an address that may not be dialled so, and CONFIG for certificates that cannot be used. */
export async function openDialler(options: DiallerOptions): Promise<Dialler> {
  const { tls, allowPlaintext = false, token = null, addresses, clock } = options;
  if (tls !== undefined) return tlsDialler(await openFiles(tls, clock), token);
  const allows = (address: string): boolean => isLoopback(address) || (allowPlaintext && token === null);
  const refused = addresses.find((address) => !allows(address));
  if (refused !== undefined) {
    const what = token === null ? "a connection" : "a token";
    const rest = token === null ? ", or allowPlaintext (--allow-plaintext) in a network of your own" : "";
    const remedy = `use TLS: tls.ca (--tls-ca) names the cluster's authority${rest}`;
    throw new StarlingError("INVALID_ARGUMENT", `${refused}: ${what} in plain text stays on loopback: ${remedy}`);
  }
  return {
    allows,
    dial: (address) => dial(address, { token }),
    onChange: () => () => {},
    close: () => {},
  };
}

/** A file that cannot be read again keeps what there is: connections then tell what is wrong. */
function openFiles(
  { ca = null, cert = null, key = null }: Partial<Nullable<ClientTls>>,
  clock: Clock,
): Promise<TlsFiles> {
  return openTlsFiles({ ca, cert, key }, { clock, wall: Date.now });
}

type Nullable<T> = { readonly [K in keyof T]: T[K] | null };

function tlsDialler(files: TlsFiles, token: string | null): Dialler {
  return {
    allows: () => true,
    dial: (address) => {
      const host = hostOf(address);
      const channel = credentials.createFromSecureContext(files.value.context, {
        checkServerIdentity: (_name, certificate) => checkServerIdentity(host, certificate),
      });
      // TLS may ask for a name, not for an IP address.
      const options: ChannelOptions = isIP(host) === 0 ? {} : { "grpc.ssl_target_name_override": "starling" };
      return dial(address, { token, credentials: channel, options });
    },
    onChange: (listener) => files.onChange(listener),
    close: () => files.close(),
  };
}
