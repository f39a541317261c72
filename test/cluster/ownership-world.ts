import type { Membership, MembershipView, NodeRecord, NodeState } from "../../cluster/membership/membership.ts";
import { createOwnerTable, type Ownership, type OwnerTable } from "../../cluster/owner-table.ts";
import { type Held, OwnershipKeeper } from "../../cluster/ownership.ts";
import { type NodeId, type ShardId, shardId, toEpoch, toNodeId } from "../../proto/ids.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import { createManualClock, type ManualClock } from "../support/manual-clock.ts";
import type { Random } from "../support/random.ts";

/** Nodes over one table of owners; what they say to each other may be lost, what they ask the table may fail. */
export interface OwnershipWorld {
  readonly clock: ManualClock;
  readonly shards: readonly ShardId[];
  readonly rows: Map<ShardId, Ownership>;
  readonly nodes: Map<string, WorldNode>;
  /** Every change of owner that was made. */
  readonly moves: { readonly shard: ShardId; readonly from: NodeId | null; readonly to: NodeId | null }[];
  /** How often of a hundred a call to the table fails, before or after it took effect. */
  failing: number;
  start(name: string): WorldNode;
  /** Its process ends: the others hear of it. */
  kill(name: string): void;
  setState(name: string, state: NodeState): void;
}

export interface WorldNode {
  readonly record: NodeRecord;
  readonly owned: Map<ShardId, Held>;
  readonly keeper: OwnershipKeeper<Held>;
  readonly owners: OwnerTable;
  status: "running" | "dead";
}

/** A world of `count` shards and no node. */
export function createOwnershipWorld(count: number, random: Random): OwnershipWorld {
  const clock = createManualClock();
  const shards = Array.from({ length: count }, (_, index) => shardId("entity", index));
  const rows = new Map<ShardId, Ownership>();
  const nodes = new Map<string, WorldNode>();
  const records = new Map<string, NodeRecord>();
  const moves: OwnershipWorld["moves"] = [];
  const listeners = new Map<string, Set<(view: MembershipView) => void>>();
  let revision = 1;
  let started = 0;

  const view = (): MembershipView => ({
    revision,
    nodes: [...records.values()].sort((a, b) => (a.name < b.name ? -1 : 1)),
    suspects: new Set(),
    pins: new Map(),
    weights: new Map(),
    departed: new Map(),
  });
  const tellViews = (): void => {
    revision++;
    for (const each of listeners.values()) for (const listener of each) listener(view());
  };
  const move = (next: Ownership): void => {
    moves.push({ shard: next.shard, from: rows.get(next.shard)?.owner ?? null, to: next.owner });
    rows.set(next.shard, next);
  };
  /** A call takes its time, and may fail before or after it has taken effect. */
  const call = async <T>(run: () => T): Promise<T> => {
    const wait = () => new Promise<void>((resolve) => void clock.after(random.between(1, 20), resolve));
    const fails = random.between(1, 100) <= world.failing;
    const before = random.between(0, 1) === 0;
    await wait();
    if (fails && before) throw new StarlingError("STORE", "no answer");
    const result = run();
    await wait();
    if (fails) throw new StarlingError("STORE", "no answer");
    return result;
  };

  const world: OwnershipWorld = {
    clock,
    shards,
    rows,
    nodes,
    moves,
    failing: 0,
    start: (name) => {
      const id = toNodeId(`${name}-${++started}`);
      const record: NodeRecord = {
        id,
        name,
        address: `${name}:1`,
        version: "1",
        protocolMin: 1,
        protocolMax: 1,
        modelHash: "m",
        state: "serving",
      };
      records.set(name, record);
      const owned = new Map<ShardId, Held>();
      const owners = createOwnerTable();
      const mine = new Set<(view: MembershipView) => void>();
      listeners.set(name, mine);
      const node: WorldNode = { record, owned, owners, status: "running", keeper: makeKeeper() };
      function makeKeeper(): OwnershipKeeper<Held> {
        const alive = (): boolean => nodes.get(name)?.status !== "dead";
        const membership: Membership = {
          self: record,
          get view() {
            return view();
          },
          connected: true,
          answeredAtMs: 0,
          look: async () => {},
          change: async () => ({ unpinned: [] }),
          onView: (listener) => {
            mine.add(listener);
            return () => void mine.delete(listener);
          },
          onExpelled: () => () => {},
          announce: async () => {},
          suspect: () => {},
          clear: () => {},
          close: async () => {},
        };
        return new OwnershipKeeper<Held>({
          shards,
          membership,
          alone: false,
          owners,
          clock,
          log: { info: () => {}, warn: () => {} },
          store: {
            readOwners: () => call(() => [...rows.values()]),
            acquire: (nodeId, wanted, { epochOf }) =>
              call(() => {
                if (!alive()) throw new StarlingError("STORE", "dead");
                const some = wanted.filter(
                  (shard) => (rows.get(shard)?.epoch ?? 0) === epochOf(shard) && random.between(1, 20) > 1,
                );
                return some.map((shard) => {
                  const epoch = toEpoch((rows.get(shard)?.epoch ?? 0) + 1);
                  move({ shard, epoch, owner: nodeId });
                  return { shard, epoch };
                });
              }),
            release: (held, nodeId) =>
              call(() => {
                for (const { shard, epoch } of held) {
                  const row = rows.get(shard);
                  if (row?.epoch === epoch && row.owner === nodeId) move({ shard, epoch, owner: null });
                }
              }),
          },
          keeper: {
            owns: (shard) => owned.has(shard),
            own: async (acquired) => {
              await new Promise<void>((resolve) => void clock.after(random.between(1, 30), resolve));
              for (const one of acquired) owned.set(one.shard, one);
            },
            giveUp: async (some) => {
              await new Promise<void>((resolve) => void clock.after(random.between(1, 60), resolve));
              const held = some.flatMap((shard) => owned.get(shard) ?? []);
              for (const shard of some) owned.delete(shard);
              return held;
            },
            drop: (some) => {
              for (const shard of some) owned.delete(shard);
            },
            onLost: () => () => {},
          },
          announce: (news) => {
            for (const other of nodes.values()) {
              if (other.record.id === id || other.status === "dead" || random.between(1, 4) === 1) continue;
              clock.after(random.between(1, 5), () => void other.owners.learn(news));
            }
          },
        });
      }
      nodes.set(name, node);
      tellViews();
      return node;
    },
    kill: (name) => {
      const node = nodes.get(name);
      if (node === undefined) return;
      node.status = "dead";
      nodes.delete(name);
      records.delete(name);
      listeners.delete(name);
      void node.keeper.close();
      tellViews();
    },
    setState: (name, state) => {
      const record = records.get(name);
      if (record !== undefined) records.set(name, { ...record, state });
      tellViews();
    },
  };
  return world;
}
