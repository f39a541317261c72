import { expect, test } from "vitest";
import type { Fault } from "./fault-plan.ts";
import { type FaultyCluster, playFaults } from "./play-faults.ts";

/** Servers whose names come with what befalls them; nothing else can. */
function createServers(): { readonly cluster: FaultyCluster; readonly seen: string[] } {
  const seen: string[] = [];
  const say = (text: string) => async () => void seen.push(text);
  const never = (): never => {
    throw new Error("no fault of a link was planned");
  };
  const cluster = {
    ...{ nodes: [0, 1].map((at) => ({ name: `node-${at}` })), databaseUrl: "" },
    network: { cut: never, heal: never, halfOpen: never, reset: never },
    etcd: { kill: say("etcd killed"), stop: say("etcd stopped"), start: say("etcd started") },
    restartPostgres: say("postgresql restarted"),
  };
  return { cluster: cluster as unknown as FaultyCluster, seen };
}

test("two restarts of the same server are played one after the other, and none is skipped", async () => {
  const { cluster, seen } = createServers();
  const fault = (kind: Fault["kind"], atMs: number, lastsMs: number): Fault => {
    return { kind, atMs, lastsMs, nodes: [0, 1], manner: atMs === 0 ? "rude" : "gentle" };
  };
  const plan = [fault("restart-etcd", 0, 40), fault("restart-etcd", 5, 0), fault("restart-postgres", 10, 0)];
  const played = await playFaults(cluster, plan);
  expect(played.map(({ skipped }) => skipped)).toEqual([null, null, null]);
  expect(seen).toEqual(["etcd killed", "postgresql restarted", "etcd started", "etcd stopped", "etcd started"]);
});
