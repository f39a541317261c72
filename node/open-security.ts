import type { Counters } from "../actors/counters.ts";
import { type LinkSecurity, plainLinks, tlsLinks } from "../cluster/link-security.ts";
import { describeForeign, nodesOfCertificate } from "../cluster/node-identity.ts";
import { type Clock, systemClock } from "../proto/clock.ts";
import { StarlingError } from "../proto/starling-error.ts";
import { openTlsFiles, type TlsFiles, type TlsMaterial } from "../proto/tls-files.ts";
import type { Settings } from "./config/settings.ts";
import type { Log } from "./log.ts";

/** Who may talk to this node, and how it is known. */
export interface Security {
  readonly links: LinkSecurity;
  /** Null: plain text. */
  readonly tls: TlsFiles | null;
  /** Reads all files again; what is wrong with them is logged and counted, and changes nothing. */
  reload(): Promise<void>;
  close(): void;
}

export interface SecurityOptions {
  readonly settings: Pick<
    Settings,
    "tlsCert" | "tlsKey" | "tlsCa" | "allowPlaintext" | "clusterName" | "name" | "etcd"
  >;
  readonly counters: Pick<Counters, "add">;
  readonly log: Log;
  readonly clock?: Clock;
  /** Unix milliseconds. */
  readonly wall?: () => number;
}

/** A certificate that ends sooner is warned of when it is read. */
const soonMs = 7 * 86_400_000;

/** Reads what the settings name, and watches it. Raises CONFIG. */
export async function openSecurity(options: SecurityOptions): Promise<Security> {
  const { settings, log, counters, clock = systemClock, wall = Date.now } = options;
  const { tlsCert, allowPlaintext, clusterName } = settings;
  if (tlsCert === null) {
    return { links: plainLinks({ allowPlaintext }), tls: null, reload: async () => {}, close: () => {} };
  }
  const paths = { ca: settings.tlsCa, cert: tlsCert, key: settings.tlsKey };
  const tls = await openTlsFiles(paths, {
    ...{ clock, wall },
    check: (material) => checkOwnName(material, settings),
    onProblem: ({ code, message }) => {
      counters.add("tls_reload_failures");
      log.error({ code, problem: message }, "certificates were not reloaded: the former ones stay");
    },
  });
  warnOfEnd(tls.value, { wall, log });
  tls.onChange((material) => {
    counters.add("tls_reloads");
    log.info({ expiresAt: expiryOf(material) }, "certificates reloaded");
    warnOfEnd(material, { wall, log });
  });
  return { links: tlsLinks({ files: tls, clusterName }), tls, reload: () => tls.reload(), close: () => tls.close() };
}

/** A node of a cluster shows a certificate of its own, or the others would refuse it. */
function checkOwnName(
  { identity }: TlsMaterial,
  { tlsCert, name, etcd, clusterName }: SecurityOptions["settings"],
): void {
  if (name === null || etcd === null || identity === null) return;
  if (nodesOfCertificate(identity.altNames, clusterName).has(name)) return;
  throw new StarlingError("CONFIG", `${tlsCert}: ${describeForeign(identity.altNames, clusterName, name)}`);
}

function warnOfEnd(material: TlsMaterial, { wall, log }: { wall: () => number; log: Log }): void {
  const leftMs = (material.identity?.expiresAt ?? Number.POSITIVE_INFINITY) - wall();
  if (leftMs < soonMs) log.warn({ expiresAt: expiryOf(material) }, "the certificate expires soon");
}

function expiryOf({ identity }: TlsMaterial): string | null {
  return identity === null ? null : new Date(identity.expiresAt).toISOString();
}
