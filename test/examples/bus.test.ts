import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { checkDatapoint } from "../../modules/check-datapoint.ts";
import { loadConfig } from "../../node/config/load-config.ts";
import { busDatapoints } from "../../node/demo/bus-data.ts";
import { type Calls, openCalls } from "../../proto/client-calls.ts";
import type { SnapshotValues } from "../../proto/snapshots-client.ts";
import { run } from "../node/cli/terminal.ts";
import { testDatabase } from "../support/postgres.ts";
import type { TestDatabase } from "../support/postgres-server.ts";
import { repository } from "../support/repository.ts";

const configDir = join(repository, "examples/bus/config");

describe("the buses' data", () => {
  it("fit the model, and are the same for the same time", async () => {
    const { model } = await loadConfig(configDir, { env: {}, flags: {} });
    const until = Date.UTC(2026, 0, 31, 12);
    const all = [...busDatapoints(until)].flat();
    const counts: Record<string, number> = {};
    for (const loose of all) {
      const { type, attr } = checkDatapoint(model, loose);
      counts[`${type}.${attr}`] = (counts[`${type}.${attr}`] ?? 0) + 1;
    }
    expect(counts).toMatchObject({ "stop.name": 22, "line.stops": 3, "bus.location": 9 * 41, "bus.passengers": 9 });
    expect([...busDatapoints(until)].flat()).toEqual(all);
  });
});

describe("the bus example", () => {
  const stop = new AbortController();
  let dataDir = "";
  let database: TestDatabase;
  let demo: ReturnType<typeof run>;
  let calls: Calls;
  let said = "";

  beforeAll(async () => {
    dataDir = await mkdtemp(join(tmpdir(), "starling-bus-"));
    database = await testDatabase();
    const args = ["demo", "bus", "--data-dir", dataDir, "--database-url", database.url, "--listen", "127.0.0.1:0"];
    await new Promise<void>((resolve, reject) => {
      const onOut = (text: string) => {
        said += text;
        if (said.includes("serving until Ctrl-C")) resolve();
      };
      demo = run(args, { signal: stop.signal, onOut });
      demo.then(({ err }) => reject(new Error(`the example ended: ${err}\n${said}`)), reject);
    });
    calls = await openCalls({ address: / -a (\S+)/.exec(said)?.[1] ?? "" });
  }, 120_000);

  afterAll(async () => {
    await calls?.close();
    stop.abort();
    await demo;
    await database.close();
    await rm(dataDir, { recursive: true, force: true });
  });

  const listed = async (type: string): Promise<readonly SnapshotValues[]> =>
    (await calls.snapshots.list({ type, limit: 100 })).snapshots;

  it("finds each bus a stop of its line, and says when it will be there", async () => {
    const stopsOf = new Map((await listed("line")).map(({ eid, values }) => [eid, eidsOf(values.stops)]));
    const buses = await listed("bus");
    expect(buses).toHaveLength(9);
    for (const { eid, values } of buses) {
      const [line] = eidsOf(values.line);
      expect(stopsOf.get(String(line)), eid).toContain(eidsOf(values.near_stop)[0]);
      expect(values.on_board, eid).toBeGreaterThan(0);
      expect(values.arrival_min, eid).toBeGreaterThanOrEqual(0);
      // Half the way between two stops at most, but rings are round.
      expect(values.near_stop_km, eid).toBeLessThan(1);
    }
  });

  it("judges lines by their buses, over a mirror", async () => {
    const lines = await listed("line");
    const buses = await listed("bus");
    expect(lines.map(({ eid, values }) => `${eid} ${values.state} ${values.buses_running}`)).toEqual([
      "1 flowing 3",
      "12 slow 2",
      "7 flowing 4",
    ]);
    for (const { eid, values } of lines) {
      const own = buses.filter((bus) => String(eidsOf(bus.values.line)[0]) === eid);
      expect(values.passengers).toBe(own.reduce((sum, bus) => sum + Number(bus.values.on_board), 0));
    }
  });

  it("writes boards at the stops of the buses that come there, the next one first", async () => {
    const buses = await listed("bus");
    const stops = await listed("stop");
    const boards = stops.flatMap(({ values }) => values.board as string[]);
    expect(boards).toHaveLength(buses.length);
    for (const { eid, values } of stops) {
      const coming = buses.filter((bus) => eidsOf(bus.values.near_stop)[0] === eid);
      expect(values.board, eid).toHaveLength(coming.length);
      const minutes = (values.board as string[]).map((text) => Number(/ in (\d+) min$/.exec(text)?.[1]));
      expect(minutes).toEqual([...minutes].sort((a, b) => a - b));
    }
  });

  it("keeps no drivers, and no records of others within a snapshot", async () => {
    expect(await listed("driver")).toEqual([]);
    for (const { values } of [...(await listed("bus")), ...(await listed("line"))]) {
      expect(JSON.stringify(values)).not.toContain('"record"');
    }
  });

  it("tells what it shows, with commands that work", async () => {
    expect(said).toContain("The boards at the stops where buses come");
    const commands = [...said.matchAll(/starling -- (snapshot (?:distinct|history|run).*)$/gm)].map(
      ([, text = ""]) => text,
    );
    expect(commands).toHaveLength(3);
    for (const command of commands) {
      const { code, err } = await run(command.split(" "));
      expect({ command, code, err: code === 0 ? "" : err }).toEqual({ command, code: 0, err: "" });
    }
  });
});

function eidsOf(value: unknown): unknown[] {
  return ([value].flat() as ({ eid: unknown } | undefined)[]).flatMap((link) => (link == null ? [] : [link.eid]));
}
