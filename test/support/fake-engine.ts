import { createCounters } from "../../actors/counters.ts";
import type { Engine, OwnedRecord } from "../../actors/engine.ts";
import type { Part, PartListener, PartRejection } from "../../actors/lane/part.ts";
import type { OnSettled } from "../../actors/sessions/settler.ts";
import { heldByAnother } from "../../actors/store/session.ts";
import type { RawRow, StoredDeadLetter, StoredSession } from "../../actors/store/store.ts";
import type { CheckedDatapoint } from "../../modules/datapoint.ts";
import { type Seq, type ShardId, toEpoch, toSeq, toSessionId } from "../../proto/ids.ts";
import { StarlingError } from "../../proto/starling-error.ts";

interface Entry {
  readonly hash: string;
  readonly seq: Seq;
  readonly rejections: readonly PartRejection[];
}

interface Channel {
  last: number;
  readonly entries: Map<number, Entry>;
}

/** What outlives an engine: logs, last numbers, sessions. Several fake engines may share one. */
export interface FakeWorld {
  readonly channels: Map<string, Channel>;
  readonly seqs: Map<ShardId, number>;
  readonly sessions: Map<string, StoredSession>;
  /** Every datapoint that was ever appended, in order. */
  readonly applied: CheckedDatapoint[];
  readonly deleted: string[];
  readonly letters: Map<string, StoredDeadLetter>;
}

export function createFakeWorld(): FakeWorld {
  return {
    channels: new Map(),
    seqs: new Map(),
    sessions: new Map(),
    applied: [],
    deleted: [],
    letters: new Map(),
  };
}

export interface FakeEngine extends Engine {
  readonly world: FakeWorld;
  /** Parts offered and not answered yet. */
  readonly offered: readonly { readonly part: Part; readonly listener: PartListener }[];
  /** Decides before the append whether a part is refused. */
  refuse: (part: Part) => StarlingError | null;
  /** While held, offers wait unanswered. */
  hold(): void;
  release(): void;
  /** Answers nothing any more, as a dead process. What is held is lost. */
  die(): void;
  setProblem(problem: StarlingError | null): void;
  /** Whether `processed` follows `durable` by itself. */
  processes: boolean;
  processAll(): void;
  readonly stats: { offers: number; repeats: number; gaps: number };
}

/** An engine that appends in memory with the semantics of R9 and R10. */
export function createFakeEngine(world: FakeWorld = createFakeWorld(), entityShards = 8): FakeEngine {
  const listeners = new Set<(problem: StarlingError | null) => void>();
  const offered: { part: Part; listener: PartListener }[] = [];
  const unprocessed: { part: Part; listener: PartListener }[] = [];
  const settling = new Set<OnSettled>();
  const counters = createCounters();
  const holders = new Map<string, string>();
  let problem: StarlingError | null = null;
  let status: "up" | "held" | "dead" = "up";
  let planned = false;

  const plan = () => {
    if (planned) return;
    planned = true;
    setImmediate(() => {
      planned = false;
      if (status === "up") for (const one of offered.splice(0)) answer(one.part, one.listener);
    });
  };

  const answer = (part: Part, listener: PartListener) => {
    const { position, shard } = part;
    const refused = engine.refuse(part);
    if (refused !== null) return listener([{ kind: "refused", position, error: refused }]);
    const key = `${part.shard} ${part.channel}`;
    const channel = world.channels.get(key) ?? { last: 0, entries: new Map() };
    world.channels.set(key, channel);
    const known = channel.entries.get(part.number);
    if (part.number <= channel.last) {
      engine.stats.repeats += 1;
      if (known === undefined || known.hash !== part.hash) {
        const text = `number ${part.number} came with other content`;
        return listener([{ kind: "refused", position, error: new StarlingError("BATCH_CHANGED", text) }]);
      }
      const { seq, rejections } = known;
      listener([{ kind: "durable", position, shard, epoch: toEpoch(1), seq, repeat: true, rejections }]);
    } else {
      if (part.predecessor !== null && part.predecessor !== channel.last) {
        engine.stats.gaps += 1;
        return listener([{ kind: "refused", position, error: new StarlingError("GAP", `after ${channel.last}`) }]);
      }
      const seq = append(part);
      channel.last = part.number;
      channel.entries.set(part.number, { hash: part.hash, seq, rejections: part.rejections });
      const { rejections } = part;
      listener([{ kind: "durable", position, shard, epoch: toEpoch(1), seq, repeat: false, rejections }]);
    }
    if (engine.processes) listener([{ kind: "processed", position, obligations: 0 }]);
    else unprocessed.push({ part, listener });
  };

  const append = (part: Part): Seq => {
    let lines = 0;
    for (const task of part.tasks) {
      lines += Math.max(1, task.datapoints.length);
      for (const datapoint of task.datapoints) world.applied.push(datapoint);
      if (task.delete) world.deleted.push(`${task.entity.id}/${task.eid}`);
    }
    const seq = (world.seqs.get(part.shard) ?? 0) + Math.max(1, lines);
    world.seqs.set(part.shard, seq);
    return toSeq(seq);
  };

  const engine: FakeEngine = {
    world,
    offered,
    entityShards,
    systemShards: 1,
    counters,
    processes: true,
    stats: { offers: 0, repeats: 0, gaps: 0 },
    refuse: () => null,
    offer: (parts, listener) => {
      engine.stats.offers += parts.length;
      if (status === "dead") return;
      for (const part of parts) offered.push({ part, listener });
      if (status === "up") plan();
    },
    hold: () => {
      status = "held";
    },
    release: () => {
      status = "up";
      plan();
    },
    die: () => {
      status = "dead";
      offered.length = 0;
    },
    processAll: () => {
      for (const { part, listener } of unprocessed.splice(0)) {
        listener([{ kind: "processed", position: part.position, obligations: 1 }]);
      }
      for (const onSettled of settling) onSettled({ watermarks: [], owing: 0 });
      settling.clear();
    },
    settle: (_channel, _through, onSettled) => {
      settling.add(onSettled);
      setImmediate(() => {
        if (engine.processes && settling.delete(onSettled)) onSettled({ watermarks: [], owing: 0 });
      });
      return () => void settling.delete(onSettled);
    },
    setProblem: (next) => {
      problem = next;
      for (const listener of listeners) listener(next);
    },
    openSession: async (name, { named, holder }) => {
      const id = name === "" ? `fake-${world.sessions.size + 1}` : name;
      const held = holders.get(id) ?? holder;
      if (held !== null && holder !== null && held !== holder) throw heldByAnother(toSessionId(id));
      if (held !== null) holders.set(id, held);
      const stored = world.sessions.get(id) ?? {
        session: toSessionId(id),
        named,
        closed: false,
        opening: 1,
        number: 1,
      };
      world.sessions.set(id, stored);
      return stored;
    },
    useSession: async () => {},
    tellSession: () => {},
    findClosed: async (sessions) => sessions.filter((session) => world.sessions.get(session)?.closed === true),
    closeSession: async (session) => {
      world.sessions.set(session, { session, named: false, closed: true, opening: 1, number: 1 });
    },
    get: async (type, eid, atLeast) => recordFrom(world, type, eid, atLeast?.seq ?? 0),
    reply: async () => ({ kind: "change", state: null, reply: '{"fake":true}' }),
    replayDeadLetter: async (id) => closeLetter(world, id, "replayed"),
    flushedUpTo: () => 1_700_000_000_000,
    ticks: { announce: () => {}, onOpen: () => () => {}, open: () => [], pass: () => {} },
    held: () => [],
    status: () => ({ problem, shards: [] }),
    onHealth: (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    follow: async function* (filter, signal) {
      for (let at = 0; !signal.aborted; ) {
        for (; at < world.applied.length; at++) {
          const row = rowOf(world.applied[at], at);
          if (row !== null && row.type === filter.type) yield row;
        }
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
    },
    queries: {
      list: async () => [],
      count: async () => new Map([["thing", new Set(world.applied.map((one) => one.eid)).size]]),
      raw: async (query) => {
        const rows = world.applied.map(rowOf).filter((row) => row !== null && row.eid === query.eid);
        return rows.reverse().slice(0, query.limit) as RawRow[];
      },
      historyRows: async () => [],
      historyPages: async () => [],
      historyHorizons: async () => new Map(),
      links: async () => [],
      deadLetters: async ({ after, limit, status: wanted }) => {
        const all = [...world.letters.values()].filter((one) => one.id > after);
        return all.filter((one) => wanted === null || one.status === wanted).slice(0, limit);
      },
      deadLetter: async (id) => world.letters.get(id) ?? null,
      countDeadLetters: async () => new Map(),
      discardDeadLetter: async (id) => (world.letters.has(id) ? closeLetter(world, id, "discarded") : null),
    },
    close: async () => {
      status = "dead";
    },
  };
  return engine;
}

function recordFrom(world: FakeWorld, type: string, eid: string, seq: number): OwnedRecord | null {
  const own = world.applied.filter((one) => one.type === type && String(one.eid) === eid);
  const newest = new Map(own.map((one) => [one.attr, one]));
  if (newest.size === 0) return null;
  if (seq > 1_000_000) throw new StarlingError("BEHIND", "not there yet");
  const latest = (attr: string) => {
    const one = newest.get(attr);
    return one && { v: one.v, t1: one.t1 ?? 0, t2: one.t2 ?? 0, c: one.c, count: own.length };
  };
  return {
    view: { type, eid, attributes: () => [...newest.keys()], latest, value: (attr) => newest.get(attr)?.v },
    createdAt: 1,
    place: { shard: 0 as ShardId, epoch: toEpoch(1), seq: toSeq(1) },
    ttlTokens: {},
  };
}

function rowOf(datapoint: CheckedDatapoint | undefined, index: number): RawRow | null {
  if (datapoint === undefined) return null;
  const { type, eid, attr, src, t1, t2, c, json } = datapoint;
  return { shard: 0 as ShardId, seq: toSeq(index + 1), at: 1, type, eid: String(eid), attr, src, t1, t2, c, json };
}

function closeLetter(world: FakeWorld, id: string, status: "replayed" | "discarded"): StoredDeadLetter {
  const letter = world.letters.get(id);
  if (letter === undefined) throw new StarlingError("NOT_FOUND", `no dead letter ${id}`);
  const closed = { ...letter, status };
  world.letters.set(id, closed);
  return closed;
}
