import { createCounters } from "../../../actors/counters.ts";
import type { LogPlace, OwnedRecord } from "../../../actors/engine.ts";
import { createEntity } from "../../../actors/lane/entity.ts";
import { restoreEntity } from "../../../actors/lane/entity-state.ts";
import { copyView } from "../../../actors/lane/entity-view.ts";
import { type Part, type PartEvent, type PartListener, taskFrom } from "../../../actors/lane/part.ts";
import { PartNews } from "../../../actors/lane/part-news.ts";
import type { LocalEngine } from "../../../actors/local-engine.ts";
import { createRouter, defaultRouterLimits, type Router, type RouterLimits } from "../../../actors/peers/router.ts";
import type { SessionOpening } from "../../../actors/store/session.ts";
import type { Queries, RawRow, StoredDeadLetter } from "../../../actors/store/store.ts";
import type { LinkListener, Links } from "../../../cluster/links/links.ts";
import { createOwnerTable, type OwnerTable } from "../../../cluster/owner-table.ts";
import { checkTask } from "../../../modules/check-task.ts";
import type { Model } from "../../../modules/model.ts";
import { type NodeId, type ShardId, shardId, toEpoch, toNodeId, toSeq, toSessionId } from "../../../proto/ids.ts";
import { shardOf } from "../../../proto/shard-of.ts";
import { type ErrorCode, StarlingError } from "../../../proto/starling-error.ts";
import { createManualClock, type ManualClock } from "../../support/manual-clock.ts";
import { testModel } from "../../support/test-model.ts";

/** Types that fit what the tests of the router offer. */
export const model = testModel({
  host: {
    seen: { kind: "observations", type: "int64" },
    note: { kind: "plain", type: "string" },
    free: { kind: "plain", type: "json" },
  },
});
const entityShards = 8;
export const [a, b, c] = [toNodeId("a"), toNodeId("b"), toNodeId("c")];
export const s = (index: number): ShardId => shardId("entity", index);

/** Routers over links in one process, before engines that only note what they are asked. */
export class PeerWorld {
  readonly clock = createManualClock();
  net = createNet(this.clock);
  readonly #routers: Router[] = [];

  /** Three linked nodes that own shards 0, 1 and 2, or all eight. */
  trio(limits: Partial<RouterLimits> = {}, shards: "three" | "all" = "three"): [TestNode, TestNode, TestNode] {
    const ids = [a, b, c] as const;
    const own = (index: number): number[] =>
      shards === "three" ? [index] : [0, 1, 2, 3, 4, 5, 6, 7].filter((shard) => shard % 3 === index);
    const start = (id: NodeId, index: number): TestNode => this.start(id, own(index), { limits });
    const [one, two, three] = [start(a, 0), start(b, 1), start(c, 2)];
    for (const { owners } of [one, two, three]) {
      for (const [index, id] of ids.entries()) owners.learn(own(index).map((shard) => owned(shard, id)));
    }
    this.net.up(a, b);
    this.net.up(a, c);
    this.net.up(b, c);
    return [one, two, three];
  }

  start(id: NodeId, shards: readonly number[], of: { limits?: Partial<RouterLimits>; model?: Model } = {}): TestNode {
    const local = createFakeLocal(shards);
    const owners = createOwnerTable();
    const counters = createCounters();
    const warnings: string[] = [];
    const note = (_: object, text: string): void => void warnings.push(text);
    const router = createRouter({
      local,
      links: this.net.links(id),
      owners,
      self: () => id,
      model: of.model ?? model,
      entityShards,
      queries: {} as Queries,
      clock: this.clock,
      counters,
      log: { warn: note, error: note },
      limits: { ...defaultRouterLimits, ...of.limits },
    });
    this.#routers.push(router);
    return { router, local, owners, counters, warnings };
  }

  /** Everything that follows without time going on. */
  async settle(): Promise<void> {
    for (let i = 0; i < 5; i++) await this.clock.advance(0);
  }

  /** What comes of it, in as much time as it may take. */
  async within<T>(work: Promise<T>): Promise<T> {
    const state: { status: "open" | "done" } = { status: "open" };
    const done = work.finally(() => {
      state.status = "done";
    });
    done.catch(() => {});
    for (let i = 0; i < 400 && state.status === "open"; i++) await this.clock.advance(10);
    if (state.status === "open") throw new Error("it took more than four seconds");
    return done;
  }

  /** Ends all routers; returns the timers that outlive them. */
  stop(): number {
    for (const router of this.#routers) router.stop();
    return this.clock.timers;
  }
}

export interface TestNode {
  readonly router: Router;
  readonly local: FakeLocal;
  readonly owners: OwnerTable;
  readonly counters: ReturnType<typeof createCounters>;
  readonly warnings: string[];
}

export function owned(shard: number, owner: NodeId) {
  return { shard: s(shard), epoch: toEpoch(1), owner };
}

export function part(shard: number, number: number, of: Partial<Part> = {}): Part {
  const at = { kind: "part", position: 0, shard: s(shard), channel: "c:x", number, predecessor: null } as const;
  return { ...at, hash: "hash", tasks: [taskFrom(task("h", number), null)], rejections: [], bytes: 100, ...of };
}

export function task(eid: string, v: number | bigint) {
  return checkTask(model, { type: "host", eid, datapoints: [{ attr: "seen", v, t1: 1_767_225_600_000 }] });
}

export function eidIn(shard: number, nth = 1): string {
  let left = nth;
  for (let i = 0; ; i++) {
    if (shardOf("entity", "host", `h${i}`, entityShards) === s(shard) && --left === 0) return `h${i}`;
  }
}

export function codes(events: readonly PartEvent[]): [number, ErrorCode][] {
  const refused = events.flatMap((event): [number, ErrorCode][] =>
    event.kind === "refused" ? [[event.position, event.error.code]] : [],
  );
  return refused.sort(([x], [y]) => x - y);
}

export function row(shard: number, seq: number): RawRow {
  const place = { shard: s(shard), seq: toSeq(seq), at: 1 };
  return { ...place, type: "host", eid: "h", attr: "seen", src: null, t1: 1.5, t2: null, c: 1, json: "1" };
}

export function recordOf(eid: string, state: string): OwnedRecord {
  const spec = model.entities.get("host");
  if (spec === undefined) throw new Error("no such type");
  const entity = createEntity(spec, eid, eid);
  const place = { shard: s(1), epoch: toEpoch(3), seq: toSeq(8) };
  const stored = { shard: s(1), type: "host", eid, created: toSeq(1), createdAt: 11, applied: toSeq(8) };
  restoreEntity(entity, { ...stored, state, tombstone: false });
  return { view: copyView(entity), createdAt: 11, place, ttlTokens: { t: 9 } };
}

type FakeLocal = ReturnType<typeof createFakeLocal>;

/** The shards of one node, without a log. */
function createFakeLocal(indexes: readonly number[]) {
  const shards = new Set(indexes.map(s));
  const lostListeners = new Set<(lost: readonly ShardId[]) => void>();
  const followers = new Set<(rows: readonly RawRow[]) => void>();
  const pending: { readonly part: Part; readonly listener: PartListener }[] = [];
  const owner = (shard: ShardId) => ({ id: shard, epoch: toEpoch(1) });
  const answer = (tell: (news: PartNews, part: Part) => void, at: number): void => {
    const found = pending[at];
    if (found === undefined) throw new Error(`no part ${at} was offered`);
    const news = new PartNews(1);
    tell(news, found.part);
    found.listener(news);
  };
  const fake = {
    offers: [] as (readonly Part[])[],
    pending,
    answers: "nothing" as "nothing" | "durable" | "processed",
    records: new Map<string, OwnedRecord>(),
    tokens: [] as LogPlace[],
    getProblem: null as StarlingError | "silence" | null,
    letterProblem: null as "silence" | null,
    letters: [] as string[],
    flushed: 1_000,
    ticksLearnt: [] as number[],
    get followers() {
      return followers.size;
    },
    take: (index: number) => void shards.add(s(index)),
    lose: (index: number) => {
      shards.delete(s(index));
      for (const listener of lostListeners) listener([s(index)]);
    },
    publish: (rows: readonly RawRow[]) => {
      for (const follower of followers) follower(rows);
    },
    tellDurable: (at: number) =>
      answer((news, { position, shard }) => news.addAppended(position, owner(shard), toSeq(1)), at),
    tellProcessed: (at: number) => answer((news, { position }) => news.addPassed(position), at),
    owns: (shard: ShardId) => shards.has(shard),
    onLost: (listener: (lost: readonly ShardId[]) => void) => {
      lostListeners.add(listener);
      return () => void lostListeners.delete(listener);
    },
    offer: (parts: readonly Part[], listener: PartListener) => {
      const news = new PartNews(parts.length);
      const here = parts.filter(({ shard, position }) => {
        if (shards.has(shard)) return true;
        news.add({ kind: "refused", position, error: new StarlingError("MOVED", "not here") });
        return false;
      });
      if (news.length > 0) listener(news);
      if (here.length === 0) return;
      fake.offers.push(here);
      for (const each of here) pending.push({ part: each, listener });
      const told = new PartNews(here.length);
      if (fake.answers !== "nothing")
        for (const { position, shard } of here) told.addAppended(position, owner(shard), toSeq(1));
      if (fake.answers === "processed") for (const { position } of here) told.addPassed(position);
      if (told.length > 0) listener(told);
    },
    get: (_type: string, eid: string, atLeast: LogPlace | null): Promise<OwnedRecord | null> => {
      if (atLeast !== null) fake.tokens.push(atLeast);
      if (!shards.has(shardOf("entity", "host", eid, entityShards)))
        return Promise.reject(new StarlingError("MOVED", "not here"));
      if (fake.getProblem === "silence") return new Promise(() => {});
      if (fake.getProblem !== null) return Promise.reject(fake.getProblem);
      return Promise.resolve(fake.records.get(eid) ?? null);
    },
    openSession: (session: string, { named }: SessionOpening) =>
      Promise.resolve({ session: toSessionId(session === "" ? "new" : session), named, closed: false, opening: 3 }),
    replayDeadLetter: (id: string): Promise<StoredDeadLetter> => {
      fake.letters.push(id);
      if (fake.letterProblem === "silence") return new Promise(() => {});
      return Promise.resolve({ id, status: "replayed" } as StoredDeadLetter);
    },
    follow: async function* (_: unknown, signal: AbortSignal): AsyncGenerator<RawRow> {
      let rows: RawRow[] = [];
      let wake = (): void => {};
      const push = (more: readonly RawRow[]): void => {
        rows.push(...more);
        wake();
      };
      followers.add(push);
      const onAbort = (): void => wake();
      signal.addEventListener("abort", onAbort);
      try {
        while (!signal.aborted) {
          const taken = rows;
          rows = [];
          yield* taken;
          if (rows.length === 0 && !signal.aborted) await new Promise<void>((resolve) => (wake = resolve));
        }
      } finally {
        followers.delete(push);
      }
    },
    flushedUpTo: () => fake.flushed,
    ticks: { newest: 0, learn: (tick: number) => void fake.ticksLearnt.push(tick) },
  };
  return fake as typeof fake & LocalEngine;
}

/** Links in one process: messages in order, one turn later; nothing over a link that is down. */
export function createNet(time: ManualClock) {
  const listeners = new Map<NodeId, LinkListener>();
  const runs = new Map<string, number>();
  const held: (() => void)[] = [];
  const onTheWay = new Map<string, number>();
  const key = (one: NodeId, other: NodeId): string => [one, other].sort().join();
  const net = {
    sent: [] as { from: NodeId; to: NodeId; bytes: number }[],
    /** Messages that may be sent. */
    credits: Number.POSITIVE_INFINITY,
    /** Bytes that may be on their way from one node to another; one message always, as on a link. */
    creditBytes: Number.POSITIVE_INFINITY,
    /** Whether the next messages are refused, one after another. */
    refusals: [] as boolean[],
    /** Messages are kept until `releaseHeld`, also over the end of their link. */
    holdBack: false,
    deliver: (from: NodeId, to: NodeId, body: Uint8Array) => listeners.get(to)?.onMessage(from, body),
    releaseHeld: (count = held.length) => {
      for (const run of held.splice(0, count)) run();
    },
    up: (one: NodeId, other: NodeId) => {
      runs.set(key(one, other), (runs.get(key(one, other)) ?? 0) + 1 + ((runs.get(key(one, other)) ?? 0) % 2));
      listeners.get(one)?.onUp(other);
      listeners.get(other)?.onUp(one);
    },
    down: (one: NodeId, other: NodeId) => {
      runs.set(key(one, other), (runs.get(key(one, other)) ?? 0) + 1);
      const problem = new StarlingError("UNAVAILABLE", "cut");
      listeners.get(one)?.onDown(other, problem);
      listeners.get(other)?.onDown(one, problem);
    },
    links: (self: NodeId): Links => {
      const isUp = (peer: NodeId): boolean => (runs.get(key(self, peer)) ?? 0) % 2 === 1;
      return {
        connect: () => {},
        isUp,
        hasLeft: () => false,
        send: (to, body) => {
          const run = runs.get(key(self, to));
          const way = `${self} to ${to}, ${run}`;
          const bytes = onTheWay.get(way) ?? 0;
          if (!isUp(to) || (bytes > 0 && bytes + body.length > net.creditBytes)) return false;
          if (net.credits <= 0 || net.refusals.shift() === true) return false;
          net.credits--;
          net.sent.push({ from: self, to, bytes: body.length });
          onTheWay.set(way, bytes + body.length);
          const arrive = (): void => {
            onTheWay.set(way, (onTheWay.get(way) ?? 0) - body.length);
            net.deliver(self, to, body);
          };
          if (net.holdBack) held.push(arrive);
          else
            time.soon(() => {
              if (runs.get(key(self, to)) === run) arrive();
            });
          return true;
        },
        on: (listener) => {
          listeners.set(self, listener);
          return () => void listeners.delete(self);
        },
        close: () => Promise.resolve(),
      };
    },
  };
  return net;
}
