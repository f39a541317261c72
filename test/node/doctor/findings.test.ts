import { readFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { PostgresExamination, PostgresFacts } from "../../../actors/store/examination.ts";
import type { EtcdExamination, EtcdFacts } from "../../../cluster/etcd/etcd-examination.ts";
import { settingsSchema } from "../../../node/config/settings.ts";
import { judgeAddress, readAddress } from "../../../node/doctor/address-findings.ts";
import { judgeEtcd } from "../../../node/doctor/etcd-findings.ts";
import { type Finding, formatBytes } from "../../../node/doctor/finding.ts";
import { type FolderFacts, judgeFolder } from "../../../node/doctor/folder-findings.ts";
import { judgeMachine, nodeVersionMin } from "../../../node/doctor/machine-findings.ts";
import { judgeNode, type NodeExamination } from "../../../node/doctor/node-findings.ts";
import { judgePostgres } from "../../../node/doctor/postgres-findings.ts";
import { type ErrorCode, StarlingError } from "../../../proto/starling-error.ts";
import { repository } from "../../support/repository.ts";

/* What is said of facts, without anything that they could be read from. */

const settings = settingsSchema.parse({});
const GiB = 1024 ** 3;

/** `status check: found → remedy` of everything that is not well. */
function complaints(findings: readonly Finding[]): string[] {
  for (const { status, remedy, expected } of findings) {
    if (status !== "ok") expect([remedy, expected]).not.toContain("");
  }
  return findings
    .filter(({ status }) => status !== "ok")
    .map(({ status, check, found, remedy }) => `${status} ${check}: ${found} → ${remedy}`);
}

const goodSettings = {
  fsync: "on",
  full_page_writes: "on",
  max_connections: "100",
  superuser_reserved_connections: "3",
  reserved_connections: "0",
  idle_session_timeout: "0",
  shared_buffers: "65536",
  default_transaction_read_only: "off",
};

const goodPostgres: PostgresFacts = {
  ...{ version: "18.4", major: 18, encoding: "UTF8", isInRecovery: false, isLocal: true, sessionKept: true },
  rights: { create: true, control: true },
  settings: new Map(Object.entries(goodSettings)),
  otherConnections: 1,
  clock: { aheadMs: -3, uncertainMs: 1 },
  meta: new Map([
    ["schema_version", "1"],
    ["cluster_id", "c1"],
    ["shards/entity", "256"],
  ]),
  oldest: null,
};

function ofPostgres(
  change: Omit<Partial<PostgresFacts>, "settings"> & { readonly set?: Readonly<Record<string, string>> },
  seen: { readonly nodes?: number; readonly freeBytes?: number } = {},
): string[] {
  const { set, ...rest } = change;
  const facts = { ...goodPostgres, ...rest, settings: new Map(Object.entries({ ...goodSettings, ...set })) };
  const { nodes = 1, freeBytes = null } = seen;
  const url = "postgres://a@h/d";
  // Several nodes meet at etcd.
  const expected = { url, settings: nodes === 1 ? settings : { ...settings, etcd: ["127.0.0.1:2379"] }, nodes };
  return complaints(judgePostgres({ examination: { kind: "answered", facts }, freeBytes }, expected));
}

describe("PostgreSQL", () => {
  it("as it should be has no complaint", () => {
    expect(ofPostgres({})).toEqual([]);
    expect(ofPostgres({ meta: null }, { freeBytes: 50 * GiB })).toEqual([]);
  });

  it.each<[string, Parameters<typeof ofPostgres>[0], RegExp]>([
    ["too old", { version: "15.2", major: 15 }, /^problem version: 15\.2 → upgrade/],
    ["not durable", { set: { fsync: "off" } }, /^problem durability: fsync = off → set fsync = on/],
    ["torn pages", { set: { full_page_writes: "off" } }, /^problem durability: full_page_writes = off/],
    ["a standby", { isInRecovery: true }, /^problem writable: a standby, which is only read → name the primary/],
    ["read only", { set: { default_transaction_read_only: "on" } }, /^problem writable: default_transaction_read_only/],
    ["another encoding", { encoding: "LATIN1" }, /^problem encoding: LATIN1 → make the database anew/],
    ["no right to make", { rights: { create: false, control: true } }, /^problem rights: .*CREATE .*GRANT CREATE/],
    ["no right to know", { rights: { create: true, control: false } }, /^problem rights: .*pg_control_system/],
    ["few connections", { set: { max_connections: "10" } }, /^problem connections: max_connections = 10, 6 .*= 23 or/],
    ["others' connections", { otherConnections: 90 }, /^problem connections: .*, 7 of them for Starling/],
    ["a pooler", { sessionKept: false }, /^problem session: .*a pooler .*pool_mode = session/],
    ["ended idle sessions", { set: { idle_session_timeout: "1000" } }, /^warning session: idle_session_timeout = 1000/],
    ["a clock ahead", { clock: { aheadMs: 3000, uncertainMs: 10 } }, /^warning clock: 3000 ms ahead of .*NTP/],
    ["a clock far behind", { clock: { aheadMs: -90_000, uncertainMs: 10 } }, /^problem clock: 90000 ms behind/],
    ["little memory", { set: { shared_buffers: "1024" } }, /^warning shared_buffers: 8 MiB/],
    ["a newer schema", { meta: new Map([["schema_version", "99"]]) }, /^problem schema: step 99, cluster not named/],
    ["other shards", { meta: new Map([["shards/system", "7"]]) }, /^problem shards: system_shards = 16 → .* to 7/],
  ])("%s is named with a remedy", (_what, facts, said) => {
    expect(ofPostgres(facts)).toEqual([expect.stringMatching(said)]);
  });

  it("old transactions are named with what ends them", () => {
    const old = {
      id: "77",
      kind: "session",
      application: "report",
      state: "idle in transaction",
      ageS: 3_700,
    } as const;
    const [session] = ofPostgres({ oldest: old });
    expect(session).toBe(
      "warning old transactions: one has been open for 61 min: process 77 (report, idle in transaction) → " +
        "end it: SELECT pg_terminate_backend(77)",
    );
    expect(ofPostgres({ oldest: { ...old, id: "x", kind: "prepared" } })[0]).toContain("ROLLBACK PREPARED 'x'");
    expect(ofPostgres({ oldest: { ...old, ageS: 10 } })).toEqual([]);
  });

  it("has to have connections for all nodes, and room on its disk", () => {
    expect(ofPostgres({}, { nodes: 6 })).toEqual([]);
    expect(ofPostgres({}, { nodes: 8 })).toEqual([
      expect.stringMatching(/^problem connections: .* max_connections = 132/),
    ]);
    expect(ofPostgres({}, { freeBytes: GiB })).toEqual([
      expect.stringMatching(/^warning disk: 1 GiB free → make room/),
    ]);
  });

  it("a clock is not blamed for a slow answer", () => {
    expect(ofPostgres({ clock: { aheadMs: 1500, uncertainMs: 900 } })).toEqual([]);
  });

  it.each([
    ["ECONNREFUSED", "STORE", /start PostgreSQL/],
    ["CONNECT_TIMEOUT", "STORE", /frozen or overloaded/],
    ["28P01", "STORE_FATAL", /correct user and password/],
    ["3D000", "STORE_FATAL", /createdb/],
    ["53300", "STORE", /raise max_connections/],
    ["57P03", "STORE", /until it has started/],
    ["ENOTFOUND", "STORE", /correct the host/],
    ["08P01", "STORE", /a pooler that keeps sessions/],
    ["DEADLINE", "DEADLINE", /frozen or overloaded/],
  ] satisfies [string, ErrorCode, RegExp][])("an error %s has a remedy of its own", (reason, code, remedy) => {
    const examination: PostgresExamination = { kind: "failed", reason, error: new StarlingError(code, "it failed") };
    const url = "postgres://eve:p@ss@word@h:1/d";
    const findings = judgePostgres({ examination, freeBytes: null }, { url, settings, nodes: 1 });
    expect(findings).toEqual([
      expect.objectContaining({ status: "problem", place: "postgresql postgres://eve@h:1/d" }),
    ]);
    expect(complaints(findings)[0]).toMatch(remedy);
  });
});

const goodEtcd: EtcdFacts = {
  ...{ version: "3.5.9", clusterId: "1", hasLeader: true, isLearner: false, storeBytes: 1e6, quotaBytes: 8 * GiB },
  ...{ alarms: [], complaints: [], readMs: 3, clusters: new Map([["c1", { mark: "m", nodes: ["ada"] }]]) },
};
const cluster = { id: "c1", mark: "m" };

function ofEtcd(...changes: readonly (Partial<EtcdFacts> | StarlingError)[]): string[] {
  const members = changes.map(
    (change, index): EtcdExamination =>
      change instanceof StarlingError
        ? { kind: "failed", endpoint: `e${index}`, error: change }
        : { kind: "answered", endpoint: `e${index}`, facts: { ...goodEtcd, ...change } },
  );
  return complaints(judgeEtcd(members, { leaseTtlMs: 4000, cluster }));
}

describe("etcd", () => {
  it("as it should be has no complaint", () => {
    expect(ofEtcd({}, {}, {})).toEqual([]);
  });

  it.each<[string, Partial<EtcdFacts>, RegExp]>([
    ["too old", { version: "3.3.25" }, /^problem version: 3\.3\.25 → upgrade/],
    ["without a leader", { hasLeader: false }, /^problem leader: none → start the other members/],
    ["a learner", { isLearner: true }, /^problem learner/],
    ["full", { alarms: ["nospace"] }, /^problem store: alarm NOSPACE: .*etcdctl alarm disarm/],
    ["nearly full", { storeBytes: 7 * GiB }, /^warning store: 7 GiB of 8 GiB → compact/],
    ["corrupt", { alarms: ["corrupt"] }, /^problem store: alarm CORRUPT/],
    ["slow", { readMs: 900 }, /^warning latency: a read took 900 ms/],
    ["unwell", { complaints: ["disk"] }, /^warning complaints: disk/],
    ["emptied", { clusters: new Map() }, /^problem cluster: nothing of this cluster.*starling cluster adopt/],
    ["made anew", { clusters: new Map([["c1", { mark: "x", nodes: [] }]]) }, /^problem cluster: another mark/],
  ])("%s is named with a remedy", (_what, facts, said) => {
    expect(ofEtcd(facts)).toEqual([expect.stringMatching(said)]);
  });

  it("one member of three that is away is a warning, two are a problem", () => {
    const away = new StarlingError("UNAVAILABLE", "etcd at e did not answer within 900 ms");
    expect(ofEtcd({}, {}, away)).toEqual([
      expect.stringMatching(/^warning reachable: .*the others serve → is it frozen/),
    ]);
    expect(ofEtcd({}, away, away)[0]).toMatch(/^problem reachable: .*nodes that run serve on/);
  });

  it("endpoints of two etcds are told apart", () => {
    expect(ofEtcd({}, { clusterId: "2" })[1]).toMatch(/^problem same etcd: cluster id 2; other endpoints: 1 →/);
  });
});

describe("the machine", () => {
  const machine = { nodeVersion: "22.1.0", openFilesMax: 20_000, memoryBytes: 8 * GiB, heapMaxBytes: 4 * GiB };
  const of = (change: Partial<typeof machine>) => complaints(judgeMachine({ ...machine, ...change }, settings));

  it("as it should be has no complaint; what is short is named", () => {
    expect(of({})).toEqual([]);
    expect(of({ nodeVersion: "20.18.9" })).toEqual([expect.stringMatching(/^problem node\.js: 20\.18\.9/)]);
    expect(of({ openFilesMax: 1024 })).toEqual([
      expect.stringMatching(/^warning open files: at most 1024 → LimitNOFILE/),
    ]);
    expect(of({ memoryBytes: GiB })).toEqual([expect.stringMatching(/^warning memory: 1 GiB/)]);
    expect(of({ heapMaxBytes: GiB / 2 })).toEqual([expect.stringMatching(/^problem heap: 512 MiB → NODE_OPTIONS/)]);
  });

  it("needs the Node.js that package.json names", async () => {
    const { engines } = JSON.parse(await readFile(join(repository, "package.json"), "utf8")) as {
      engines: { node: string };
    };
    expect(`${engines.node}.0`).toBe(`>=${nodeVersionMin}`);
  });

  it("bytes are written for people", () => {
    expect([0, 1023, 1536, 5 * GiB, 750 * 1024 ** 2].map(formatBytes)).toEqual([
      "0 B",
      "1023 B",
      "1.5 KiB",
      "5 GiB",
      "750 MiB",
    ]);
  });
});

describe("the data folder", () => {
  const folder: FolderFacts = {
    ...{ path: "/d", kind: "folder", isWritable: true, ownerUid: 1, uid: 1, freeBytes: 9 * GiB, user: null },
  };
  const of = (change: Partial<FolderFacts>) => complaints(judgeFolder({ ...folder, ...change }, true));

  it("as it should be, or missing, has no complaint; else it is named with a remedy", () => {
    expect(of({})).toEqual([]);
    expect(of({ kind: "missing", user: 12 })).toEqual([]);
    expect(of({ kind: "no folder" })).toEqual([expect.stringMatching(/^problem folder: it is no folder/)]);
    expect(of({ isWritable: false, ownerUid: 0 })).toEqual([
      expect.stringMatching(/^problem folder: .*of uid 0, this is uid 1/),
    ]);
    expect(of({ freeBytes: GiB / 2 })).toEqual([expect.stringMatching(/^warning disk: 512 MiB free/)]);
    expect(of({ freeBytes: 1e6 })).toEqual([expect.stringMatching(/^problem disk/)]);
  });
});

describe("the address", () => {
  it("of another program is taken, and that one is named", async () => {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const bound = server.address();
    const listen = `127.0.0.1:${typeof bound === "object" && bound !== null ? bound.port : 0}`;
    try {
      const facts = await readAddress(listen);
      expect(complaints(judgeAddress(listen, facts, false))).toEqual([
        expect.stringMatching(/^problem address: taken.* → end that program/),
      ]);
      if (process.platform === "linux") expect(facts).toMatchObject({ holder: { pid: process.pid, isStopped: false } });
      expect(complaints(judgeAddress(listen, facts, true))).toEqual([]);
    } finally {
      await new Promise((resolve) => server.close(resolve));
    }
    expect(await readAddress(listen)).toEqual({ kind: "free" });
  });

  it("that is not this machine's is refused", async () => {
    const facts = await readAddress("192.0.2.1:4700");
    expect(complaints(judgeAddress("192.0.2.1:4700", facts, false))).toEqual([
      expect.stringMatching(/^problem address: EADDRNOTAVAIL → name an address of this machine/),
    ]);
  });
});

describe("a node", () => {
  const status = {
    ...{ node: "n", clusterId: "c", modelHash: "m", version: "1", state: "serving", uptimeS: 5, counters: {} },
    ...{ shards: [], problem: "", name: "ada" },
  };
  const expectation = { address: "h:1", isNamed: true, version: "1", lagMaxEntries: 100 };
  const of = (examination: NodeExamination, isNamed = true) =>
    complaints(judgeNode(examination, { ...expectation, isNamed }));
  const answered = (change: Partial<typeof status>, deadLetters: number | null = 0) =>
    of({ kind: "answered", status: { ...status, ...change }, deadLetters });

  it("that serves has no complaint; else its words are shown", () => {
    expect(answered({})).toEqual([]);
    expect(answered({ state: "not serving", problem: "STORE: gone" })).toEqual([
      expect.stringMatching(/^problem state: not serving: STORE: gone → it comes back by itself/),
    ]);
    expect(answered({ state: "leaving" })).toEqual([expect.stringMatching(/^warning state: leaving/)]);
    expect(answered({ version: "2" })).toEqual([expect.stringMatching(/^warning version: 2/)]);
    expect(answered({}, 3)).toEqual([
      expect.stringMatching(/^warning dead letters: 3 open → starling dead-letter list/),
    ]);
    expect(answered({}, 1000)).toEqual([expect.stringMatching(/^warning dead letters: 1000 or more/)]);
    expect(answered({}, null)).toEqual([expect.stringMatching(/^warning dead letters: they could not be counted/)]);
  });

  it("that lags is told of before its senders have to wait", () => {
    const shard = { shard: 1, epoch: 1, lastSeq: 900, watermark: 10, residentEntities: 0, undelivered: 0, lag: 70 };
    const lagging = { ...status, shards: [shard] };
    expect(of({ kind: "answered", status: lagging, deadLetters: 0 })).toEqual([
      expect.stringMatching(/^warning lag: 70 log entries wait in 1 shards, at most 70 in one/),
    ]);
  });

  it("that nobody named may as well not run", () => {
    const refused = new StarlingError("UNAVAILABLE", "no node answered at h:1: connect ECONNREFUSED");
    expect(of({ kind: "failed", error: refused }, false)).toEqual([]);
    expect(of({ kind: "failed", error: refused })).toEqual([
      expect.stringMatching(/^problem running: nothing listens/),
    ]);
    const silent = new StarlingError("UNAVAILABLE", "no node answered at h:1: deadline exceeded");
    expect(of({ kind: "failed", error: silent }, false)).toEqual([
      expect.stringMatching(/^problem running: no answer/),
    ]);
  });
});
