import { cp, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createToken } from "../../node/access/token.ts";
import { writeTokenEntry } from "../../node/access/token-entry.ts";
import { connect } from "../../proto/client.ts";
import { openCalls } from "../../proto/client-calls.ts";
import type { ReachOptions } from "../../proto/client-dialler.ts";
import { checkClusterFacts, sentencesOf } from "../support/cluster/checker.ts";
import { type ClusterLoad, startClusterLoad } from "../support/cluster/cluster-load.ts";
import { findBacklog, findUnowned, untilNothing } from "../support/cluster/liveness.ts";
import { startTestCluster, type TestCluster } from "../support/cluster/test-cluster.ts";
import { openKillDatabase } from "../support/kill-facts.ts";
import { seedOfRun } from "../support/random.ts";
import { repository } from "../support/repository.ts";
import { createAuthority, type TestAuthority, writeAuthorities, writeCertificate } from "../support/test-authority.ts";

/* Three real nodes that talk TLS, whose certificates and tokens change under one load. */

const names = ["node-a", "node-b", "node-c"];
const testMs = 90_000;
const within = { timeout: 30_000 };
const seed = seedOfRun();
const full = createToken();
let folder = "";
let former: TestAuthority;
let next: TestAuthority;
let clientCa = "";
let cluster: TestCluster;
let load: ClusterLoad;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "starling-tls-cluster-"));
  [former, next] = await Promise.all([createAuthority(), createAuthority()]);
  clientCa = join(folder, "client-ca.pem");
  await trust(former);
  for (const name of names) await certify(name, former);
  await cp(join(repository, "test/support/cluster-config"), join(folder, "config"), { recursive: true });
  await writeTokens({ name: "full", hash: full.hash });
  const of = (name: string, end: string) => join(folder, `${name}${end}`);
  const flagsOf = (name: string) => [
    ...["--tls-cert", of(name, ".pem"), "--tls-key", of(name, ".key"), "--tls-ca", of(name, "-ca.pem")],
  ];
  const reach = { tls: { ca: clientCa }, token: full.token };
  const shards = { entity: 16, system: 4 };
  cluster = await startTestCluster({ nodes: 3, shards, flagsOf, reach, configDir: join(folder, "config") });
  load = startClusterLoad({ addresses: cluster.addresses, seed, rate: 200, entityShards: shards.entity, reach });
}, testMs);

afterAll(async () => {
  await load?.finish();
  await cluster?.close();
  await rm(folder, { recursive: true, force: true });
});

/** All nodes and clients trust these authorities from now on. */
async function trust(...authorities: readonly TestAuthority[]): Promise<void> {
  for (const name of names) await writeAuthorities(join(folder, `${name}-ca.pem`), ...authorities);
  await writeAuthorities(clientCa, ...authorities);
}

async function certify(name: string, authority: TestAuthority): Promise<void> {
  await writeCertificate(folder, name, await authority.issue({ nodes: [name] }));
}

async function writeTokens(...tokens: readonly { readonly name: string; readonly hash: Buffer }[]): Promise<void> {
  const grants = (["ingest", "read", "control"] as const).map((scope) => ({ scope, type: null }));
  const entries = tokens.map((token) => writeTokenEntry({ ...token, grants, expiresAt: null }));
  await writeFile(join(folder, "config/tokens.yml"), `${entries.join("\n")}\n`);
}

/** Each node has said it, so many times. */
async function saidByAll(text: string, times: number): Promise<void> {
  const counts = () =>
    cluster.nodes.map((node) => node.log().filter((line) => line.includes(`"msg":"${text}"`)).length);
  await expect.poll(() => Math.min(...counts()), within).toBeGreaterThanOrEqual(times);
}

/** What each node answers a new client. */
function ask(reach: ReachOptions): Promise<string[]> {
  return Promise.all(cluster.addresses.map((address) => askOne(address, reach)));
}

async function askOne(address: string, reach: ReachOptions): Promise<string> {
  await using calls = await openCalls({ ...reach, address, connectMs: 5_000 });
  return (await calls.admin.status()).state;
}

/** A client that trusts this authority alone. */
async function only(authority: TestAuthority): Promise<ReachOptions> {
  return { tls: { ca: await writeAuthorities(join(folder, "only.pem"), authority) }, token: full.token };
}

/** The load goes on, without an error. */
async function untilServed(): Promise<void> {
  const from = load.acks.length;
  await expect.poll(() => load.acks.length, within).toBeGreaterThan(from + 10);
  expect(load.errors).toEqual([]);
}

test("nodes that know each other by their certificates share the shards", { timeout: testMs }, async () => {
  expect(await untilNothing(() => findUnowned(cluster), within.timeout)).toEqual([]);
  expect(await ask(await only(former))).toEqual(["serving", "serving", "serving"]);
  await untilServed();
});

test("a certificate that cannot be used is not taken over, and says why", { timeout: testMs }, async () => {
  await writeFile(join(folder, "node-a.pem"), "nonsense\n");
  const said = await cluster.nodes[0]?.process?.logged((line) => line.includes("certificates were not reloaded"));
  expect(said).toMatch(/node-a\.pem holds no certificate/);
  await writeCertificate(folder, "node-a", await former.issue({ nodes: ["node-b"] }));
  const foreign = await cluster.nodes[0]?.process?.logged((line) => line.includes("is not that of node node-a"));
  expect(foreign).toMatch(/it needs the name URI:starling:\/\/starling\/node\/node-a/);
  expect(await ask(await only(former))).toEqual(["serving", "serving", "serving"]);
  await certify("node-a", former);
});

test("the authority and all certificates are replaced, and no client sees an error", {
  timeout: 3 * testMs,
}, async () => {
  const reloads = cluster.nodes.map(
    (node) => node.log().filter((line) => line.includes('"certificates reloaded"')).length,
  );
  const reloaded = (more: number) => saidByAll("certificates reloaded", Math.max(...reloads) + more);
  await trust(former, next);
  await reloaded(1);
  await untilServed();
  for (const name of names) await certify(name, next);
  for (const { process: running } of cluster.nodes) if (running !== null) process.kill(running.pid, "SIGHUP");
  await expect.poll(async () => ask(await only(next)).catch(() => []), within).toEqual(names.map(() => "serving"));
  await untilServed();
  await trust(next);
  const served = async (reach: ReachOptions): Promise<string[]> => {
    const asked = await Promise.allSettled(cluster.addresses.map((address) => askOne(address, reach)));
    return asked.map(({ status }) => status);
  };
  await expect.poll(async () => served(await only(former)), within).toEqual(names.map(() => "rejected"));
  expect(await served(await only(next))).toEqual(names.map(() => "fulfilled"));
  await untilServed();
  // Whoever starts now knows nothing of the former authority. After two of three all links are new.
  for (const node of cluster.nodes.slice(1)) {
    expect(await node.stop()).toBe(0);
    await node.start();
    expect(await untilNothing(() => findUnowned(cluster), within.timeout)).toEqual([]);
  }
  await untilServed();
});

test("a token that is taken out of the file is out, and one that is added is in", { timeout: testMs }, async () => {
  const [gone, added] = [createToken(), createToken()];
  const reachOf = ({ token }: { token: string }): ReachOptions => ({ ...cluster.reach, token });
  await writeTokens({ name: "full", hash: full.hash }, { name: "gone", hash: gone.hash });
  await expect.poll(() => ask(reachOf(gone)).catch(() => []), within).toEqual(names.map(() => "serving"));
  const [address = ""] = cluster.addresses;
  await using client = await connect({ ...reachOf(gone), address });
  await writeTokens({ name: "full", hash: full.hash }, { name: "added", hash: added.hash });
  await expect.poll(() => ask(reachOf(added)).catch(() => []), within).toEqual(names.map(() => "serving"));
  await expect(ask(reachOf(gone))).rejects.toMatchObject({ code: "UNAUTHENTICATED" });
  await expect(client.send([{ type: "probe", eid: "x", attr: "number", v: 1, t1: 1 }])).rejects.toMatchObject({
    code: "UNAUTHENTICATED",
  });
  await untilServed();
});

test("a node with another node's certificate does not start", { timeout: testMs }, async () => {
  const flags = ["--name", "node-d", "--tls-cert", join(folder, "node-a.pem"), "--tls-key", join(folder, "node-a.key")];
  const thief = await cluster.add("node-d", { flags: [...flags, "--tls-ca", clientCa] });
  await expect(thief.start({ tries: 1 })).rejects.toThrow(/node-a\.pem: the certificate is not that of node node-d/);
});

test("nothing was lost, doubled or put out of order on the way", { timeout: testMs }, async () => {
  await load.finish();
  expect(load.errors).toEqual([]);
  expect(await untilNothing(() => findBacklog(cluster), within.timeout)).toEqual([]);
  expect(load.reads.exact).toBeGreaterThan(0);
  await using databases = openKillDatabase(cluster.databaseUrls);
  const verdict = checkClusterFacts({ ...(await databases.facts()), sent: load.sent() });
  expect(sentencesOf(verdict).slice(0, 20)).toEqual([]);
});
