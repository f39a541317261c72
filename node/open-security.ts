import { join } from "node:path";
import type { Counters } from "../actors/counters.ts";
import { type LinkSecurity, plainLinks, tlsLinks } from "../cluster/links/link-security.ts";
import { describeForeign, nodesOfCertificate } from "../cluster/node-identity.ts";
import { type Clock, systemClock } from "../proto/clock.ts";
import { StarlingError } from "../proto/starling-error.ts";
import { openTlsFiles, type TlsFiles, type TlsMaterial } from "../proto/tls-files.ts";
import { type WatchedFiles, watchFiles } from "../proto/watched-files.ts";
import type { KnownToken } from "./access/token.ts";
import type { Settings } from "./config/settings.ts";
import { readTokensFile, tokensFileName } from "./config/tokens-file.ts";
import type { Log } from "./log.ts";

/** Who may talk to this node, and how it is known. */
export interface Security {
  readonly links: LinkSecurity;
  /** Null: plain text. */
  readonly tls: TlsFiles | null;
  /** Null inside: there is no file of tokens. */
  readonly tokens: WatchedFiles<readonly KnownToken[] | null>;
  /** Reads all files again; what is wrong with them is logged and counted, and changes nothing. */
  reload(): Promise<void>;
  close(): void;
}

export interface SecurityOptions {
  readonly settings: Pick<
    Settings,
    "tlsCert" | "tlsKey" | "tlsCa" | "allowPlaintext" | "clusterName" | "name" | "etcd" | "tokensFile"
  >;
  readonly configDir: string;
  /** Entity types that tokens may name. */
  readonly types: readonly string[];
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
  const { allowPlaintext, clusterName } = options.settings;
  const tokens = await openTokens(options);
  try {
    const tls = await openTls(options);
    return {
      links: tls === null ? plainLinks({ allowPlaintext }) : tlsLinks({ files: tls, clusterName }),
      ...{ tls, tokens },
      reload: async () => void (await Promise.all([tls?.reload(), tokens.reload()])),
      close: () => {
        tls?.close();
        tokens.close();
      },
    };
  } catch (error) {
    tokens.close();
    throw error;
  }
}

async function openTls(options: SecurityOptions): Promise<TlsFiles | null> {
  const { settings, log, counters, clock = systemClock, wall = Date.now } = options;
  if (settings.tlsCert === null) return null;
  const paths = { ca: settings.tlsCa, cert: settings.tlsCert, key: settings.tlsKey };
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
  return tls;
}

async function openTokens(options: SecurityOptions): Promise<Security["tokens"]> {
  const { settings, configDir, types, log, counters, clock = systemClock } = options;
  const path = settings.tokensFile ?? join(configDir, tokensFileName);
  let mustBe = settings.tokensFile !== null;
  const tokens = await watchFiles({
    ...{ paths: [path], clock },
    read: async () => {
      const known = await readTokensFile(path, types);
      // Who takes the file away does not open the node to everyone.
      if (known === null && mustBe) throw new StarlingError("CONFIG", `${path} is not there`);
      mustBe = known !== null;
      return known;
    },
    onProblem: ({ code, message }) => {
      counters.add("token_reload_failures");
      log.error({ code, problem: message }, "tokens were not reloaded: the former ones stay");
    },
  });
  tokens.onChange((known) => {
    counters.add("token_reloads");
    log.info({ tokens: known?.length ?? null }, "tokens reloaded");
  });
  return tokens;
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
