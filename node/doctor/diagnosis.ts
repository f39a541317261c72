import { resolve } from "node:path";
import type { ReachOptions } from "../../proto/client-dialler.ts";
import type { Clock } from "../../proto/clock.ts";
import { withDeadline } from "../../proto/deadline.ts";
import type { SettingSources } from "../config/read-settings.ts";
import type { Settings } from "../config/settings.ts";
import { version } from "../version.ts";
import { judgeAddress, readAddress } from "./address-findings.ts";
import { judgeCertificates, readCertificates } from "./certificate-findings.ts";
import { readConfiguration } from "./configuration-findings.ts";
import type { Finding } from "./finding.ts";
import { judgeFolder, readFolder } from "./folder-findings.ts";
import { failedLook, look } from "./look.ts";
import { judgeMachine, readMachine } from "./machine-findings.ts";
import { examineNode, judgeNode } from "./node-findings.ts";
import { lookAtStores } from "./store-findings.ts";

/*
 * Looks at everything that a node needs, changes nothing, and answers within three seconds whatever does not:
 *
 * 1. All looks run at once. Each bounds its own steps, so that it can say how far it came; one that takes longer than two
 *    seconds all the same is a problem of its own (`look.ts`).
 * 2. Gathering and judging are apart: a look yields facts, among them that something did not answer, and pure functions
 *    (`judge…`) make findings of them.
 */
export interface DiagnosisOptions extends Pick<SettingSources, "env" | "flags"> {
  /** The configuration directory; null: settings come from variables and flags alone. */
  readonly dir: string | null;
  /** The nodes to ask; none: the one that has these settings, if it runs. With addresses and no directory only they are asked. */
  readonly addresses: readonly string[];
  /** How to reach it. */
  readonly reach: ReachOptions;
  readonly clock: Clock;
  /** Unix milliseconds. */
  readonly wall: () => number;
}

export interface Diagnosis {
  readonly findings: readonly Finding[];
  readonly tookMs: number;
}

/** All else waits for it. */
const configurationMs = 900;
/** Of the two that asking a node takes. */
const nodeStepMs = 900;

/** Says everything that there is to say. Raises nothing but bugs. */
export async function diagnose(options: DiagnosisOptions): Promise<Diagnosis> {
  const { clock, dir, addresses } = options;
  const startMs = clock.now();
  const looks = dir === null && addresses.length > 0 ? lookAtNodes(options, null) : await lookAround(options);
  const findings = (await Promise.all(looks)).flat();
  return { findings, tookMs: Math.round(clock.now() - startMs) };
}

async function lookAround(options: DiagnosisOptions): Promise<Promise<readonly Finding[]>[]> {
  const { clock, wall, addresses } = options;
  const read = withDeadline(readConfiguration(options), {
    clock,
    deadlineMs: configurationMs,
    text: "it was not read",
  });
  const { findings, settings } = await read.catch((error: unknown) => ({
    findings: failedLook("configuration", error),
    settings: null,
  }));
  const configuration = Promise.resolve(findings);
  const machine = look(clock, "machine", async () => judgeMachine(await readMachine(), settings));
  if (settings === null) return [configuration, machine];
  const folder = resolve(settings.dataDir);
  return [
    configuration,
    machine,
    look(clock, `data folder ${folder}`, async () =>
      judgeFolder(await readFolder(folder), settings.databaseUrl === null),
    ),
    look(clock, "certificates", async () =>
      judgeCertificates(await readCertificates(settings), { settings, nowMs: wall() }),
    ),
    look(clock, "postgresql and etcd", () => lookAtStores(options, settings)),
    ...(addresses.length === 0 ? lookAtOwnNode(options, settings) : lookAtNodes(options, settings)),
  ];
}

/** Nodes that a person named. */
function lookAtNodes({ clock, reach, addresses }: DiagnosisOptions, settings: Settings | null) {
  const known = { isNamed: true, version, lagMaxEntries: settings?.lagMaxEntries ?? null };
  return addresses.map((address) =>
    look(clock, `node ${address}`, async () =>
      judgeNode(await examineNode({ ...reach, address }, nodeStepMs), { ...known, address }),
    ),
  );
}

/** A node's own certificate is good enough to ask it. */
function reachOfOwn({ allowPlaintext, tlsCert: cert, tlsKey: key, tlsCa: ca }: Settings): ReachOptions {
  if (cert === null || key === null) return { allowPlaintext };
  return { tls: { cert, key, ...(ca !== null && { ca }) } };
}

/** The node that has these settings: its port is free, or it answers there. */
function lookAtOwnNode({ clock, reach }: DiagnosisOptions, settings: Settings) {
  const { listen, lagMaxEntries } = settings;
  const address = listen.replace(/^(0\.0\.0\.0|\[::\])(?=:)/, "127.0.0.1");
  const asked = examineNode({ ...reach, ...reachOfOwn(settings), address }, nodeStepMs);
  return [
    look(clock, `listen ${listen}`, async () => {
      const [facts, node] = await Promise.all([readAddress(listen), asked]);
      return judgeAddress(listen, facts, node.kind === "answered");
    }),
    look(clock, `node ${address}`, async () =>
      judgeNode(await asked, { address, isNamed: false, version, lagMaxEntries }),
    ),
  ];
}
