import type { Clock } from "../../proto/clock.ts";
import { withDeadline } from "../../proto/deadline.ts";
import type { SessionId, ShardId } from "../../proto/ids.ts";
import { shardOf } from "../../proto/shard-of.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import { unreachable } from "../../proto/unreachable.ts";
import type { Engine } from "../engine.ts";
import { closedSession, type SessionOpening } from "../store/session.ts";
import { keyPrefix } from "../store/session-life.ts";
import { newestTokens } from "./acks.ts";
import type { SplitBatch } from "./batch.ts";
import { type BatchMeter, createBatchMeter } from "./batch-meter.ts";
import { isOdd, nameMaxLength } from "./name.ts";
import {
  acceptedOf,
  createSessionState,
  type OpenBatch,
  type SessionMessage,
  type SessionState,
  stepSession,
} from "./session.ts";
import { wireToken } from "./wire-token.ts";

/** Where a call's batch goes: what it needs to be split. */
export interface CallChannel {
  readonly channel: string;
  readonly number: number;
  readonly homeShard: ShardId;
}

export interface CallOptions {
  readonly level: CallLevel;
  readonly deadlineMs: number;
  readonly signal: AbortSignal;
  /** The call is recognised when it is repeated with the same key; empty: at-least-once. */
  readonly idempotencyKey: string;
  /** Of the batch, where there is a key. */
  readonly hash?: string;
  /** The caller's token, by its name: another one's keys are refused. Default none. */
  readonly holder?: string | null;
  /** The caller's trace (W3C); default none. */
  readonly traceparent?: string | null;
}

export type CallLevel = "durable" | "processed";

export interface CallSessionOptions {
  readonly engine: Engine;
  readonly clock: Clock;
  /** Default: one that counts with the engine's counters. */
  readonly meter?: BatchMeter;
  /** Calls at once, and the bytes of their batches. */
  readonly maxCalls: number;
  readonly maxBytes: number;
}

export const defaultCallLimits = { maxCalls: 1_000, maxBytes: 64 * 1024 * 1024 } as const;

/**
 * Offers batches of calls that have no session of their own. All of a node's calls without an idempotency key share one
 * session a level, so that no call leaves a channel behind in the store; a call with a key is the one batch of the named
 * session `key:<key>`, which keeps its hash.
 */
export class CallSession {
  readonly #options: CallSessionOptions;
  readonly #meter: BatchMeter;
  readonly #shared = new Map<CallLevel, Promise<Run>>();
  readonly #runs = new Set<Run>();
  #calls = 0;
  #bytes = 0;
  #status: "open" | "closed" = "open";

  constructor(options: CallSessionOptions) {
    this.#options = options;
    this.#meter = options.meter ?? createBatchMeter({ counters: options.engine.counters, clock: options.clock });
  }

  /** Resolves when the batch has reached the level. Raises BUSY, DEADLINE, UNAVAILABLE, SESSION_CLOSED, BATCH_CHANGED. */
  async send(split: (channel: CallChannel) => SplitBatch, call: CallOptions): Promise<OpenBatch> {
    const { clock, maxCalls } = this.#options;
    if (this.#status === "closed") throw new StarlingError("UNAVAILABLE", "the node is stopping");
    refuseKey(call.idempotencyKey);
    if (this.#calls >= maxCalls) throw busy(`${maxCalls} calls`);
    this.#calls += 1;
    const opening = this.#runOf(call);
    let wanted = true;
    const sending = opening.then((run) => (wanted ? this.#send(run, split, call) : never<OpenBatch>()));
    const text = `it is unknown whether the datapoints were taken: the batch was not ${call.level}`;
    try {
      return await withDeadline(sending, { ...call, clock, text });
    } finally {
      wanted = false;
      // Who no longer waits keeps its place until its session is open: its datapoints are held so long.
      const over = (run: Run | null): void => {
        this.#calls -= 1;
        if (run !== null && !run.shared) this.#end(run);
      };
      void opening.then(over, () => over(null));
    }
  }

  /** Waits for what is in hand, `graceMs` at most, and closes the shared sessions. */
  async close(graceMs: number): Promise<void> {
    if (this.#status === "closed") return;
    this.#status = "closed";
    const { clock, engine } = this.#options;
    const until = clock.now() + graceMs;
    while (this.#calls > 0 && clock.now() < until) await new Promise<void>((resolve) => clock.after(10, resolve));
    const shared = await Promise.allSettled(this.#shared.values());
    for (const run of this.#runs) this.#end(run);
    // A session that stays open costs one row; the node stops all the same.
    const closing = shared.map((one) => (one.status === "fulfilled" ? engine.closeSession(one.value.session) : null));
    await Promise.allSettled(closing);
  }

  #runOf({ idempotencyKey: key, hash, holder = null, level }: CallOptions): Promise<Run> {
    if (key === "") return this.#sharedRun(level);
    return this.#open(`${keyPrefix}${key}`, { named: true, holder, ...(hash !== undefined && { hash }) }, level);
  }

  async #send(run: Run, split: (channel: CallChannel) => SplitBatch, call: CallOptions): Promise<OpenBatch> {
    const { engine, maxBytes } = this.#options;
    const homeShard = shardOf("entity", "", run.session, engine.entityShards);
    run.lastNumber += 1;
    const batch = split({ channel: `c:${run.session}`, number: run.lastNumber, homeShard });
    if (this.#bytes > 0 && this.#bytes + batch.bytes > maxBytes) throw busy(`${maxBytes} bytes of calls`);
    this.#bytes += batch.bytes;
    try {
      return await new Promise<OpenBatch>((resolve, reject) => {
        this.#dispatch(run, { kind: "batch", batch }, { ...call, resolve, reject });
      });
    } finally {
      this.#bytes -= batch.bytes;
    }
  }

  #sharedRun(level: CallLevel): Promise<Run> {
    const known = this.#shared.get(level);
    if (known !== undefined) return known;
    const opening = this.#open("", { named: false, holder: null }, level);
    this.#shared.set(level, opening);
    opening.catch(() => this.#shared.delete(level));
    return opening;
  }

  async #open(session: string, opening: SessionOpening, level: CallLevel): Promise<Run> {
    const stored = await this.#options.engine.openSession(session, opening);
    if (stored.closed) throw closedSession(stored.session);
    const state = createSessionState(level === "processed");
    const run = { session: stored.session, level, state, waiters: new Map(), rests: new Set<() => void>(), queue: [] };
    const opened: Run = {
      ...run,
      shared: !opening.named,
      status: "current",
      lastNumber: opening.named ? stored.number - 1 : 0,
    };
    this.#runs.add(opened);
    return opened;
  }

  /** One message after another, also when the engine answers while it is being asked. */
  #dispatch(run: Run, message: SessionMessage, waiter: Waiter | null): void {
    run.queue.push({ message, waiter });
    if (run.queue.length > 1) return;
    try {
      for (let next = run.queue[0]; next !== undefined; next = run.queue[0]) {
        this.#perform(run, next.message, next.waiter);
        run.queue.shift();
      }
    } catch (bug) {
      // Calls to come do not suffer for it.
      run.queue.length = 0;
      this.#retire(run);
      throw bug;
    }
  }

  #perform(run: Run, message: SessionMessage, waiter: Waiter | null): void {
    for (const effect of stepSession(run.state, message)) {
      switch (effect.kind) {
        case "opened":
          this.#meter.opened(effect.batch, waiter?.traceparent ?? null);
          if (waiter !== null) run.waiters.set(effect.batch, waiter);
          break;
        case "offer": {
          const { batch, parts, offer } = effect;
          this.#options.engine.offer(parts, (news) => this.#dispatch(run, { kind: "news", batch, offer, news }, null));
          break;
        }
        case "rest":
          this.#rest(run, effect.shard, effect.ms);
          break;
        case "durable":
        case "processed":
          this.#meter[effect.kind](effect.batch);
          if (effect.kind !== run.level) break;
          this.#meter.closed(effect.batch);
          answer(run, effect.batch, null);
          if (run.status === "retired") this.#retire(run);
          break;
        case "failed":
          this.#meter.closed(effect.batch);
          answer(run, effect.batch, effect.error);
          this.#retire(run);
          break;
        default:
          unreachable(effect);
      }
    }
  }

  /** What failed for good may hold up a shared session: the next call gets a new one, this one ends with its last call. */
  #retire(run: Run): void {
    if (!run.shared) return;
    if (run.status === "current") this.#shared.delete(run.level);
    run.status = "retired";
    if (run.waiters.size > 0 || !this.#runs.has(run)) return;
    this.#end(run);
    // A session that stays open costs one row.
    this.#options.engine.closeSession(run.session).catch(() => {});
  }

  #rest(run: Run, shard: ShardId, ms: number): void {
    if (!this.#runs.has(run)) return;
    const cancel = this.#options.clock.after(ms, () => {
      run.rests.delete(cancel);
      this.#dispatch(run, { kind: "rested", shard }, null);
    });
    run.rests.add(cancel);
  }

  #end(run: Run): void {
    for (const cancel of run.rests) cancel();
    run.rests.clear();
    // What is not answered yet is given up: who waits for it, if anybody, holds its bytes as long.
    for (const [batch, { reject }] of run.waiters) {
      this.#meter.closed(batch);
      reject(new StarlingError("UNAVAILABLE", "the node gave the batch up before it was acknowledged"));
    }
    run.waiters.clear();
    this.#runs.delete(run);
  }
}

function refuseKey(key: string): void {
  const text = `an idempotency key has at most ${nameMaxLength} characters`;
  if (key.length > nameMaxLength) throw new StarlingError("TOO_LARGE", text);
  if (isOdd(key)) throw new StarlingError("INVALID_ARGUMENT", "an idempotency key holds a control character");
}

/** What a call is answered, on the wire. */
export function replyOf(batch: OpenBatch) {
  return {
    accepted: BigInt(acceptedOf(batch)),
    rejections: batch.rejections,
    tokens: newestTokens([batch]).map(wireToken),
    obligations: batch.obligations,
  };
}

interface Waiter {
  readonly traceparent?: string | null;
  readonly resolve: (batch: OpenBatch) => void;
  readonly reject: (error: StarlingError) => void;
}

interface Run {
  readonly session: SessionId;
  readonly level: CallLevel;
  readonly state: SessionState;
  readonly waiters: Map<OpenBatch, Waiter>;
  readonly rests: Set<() => void>;
  readonly queue: { readonly message: SessionMessage; readonly waiter: Waiter | null }[];
  /** By all calls of the level that have no key. */
  readonly shared: boolean;
  status: "current" | "retired";
  lastNumber: number;
}

/** Of a call that nobody waits for. */
function never<T>(): Promise<T> {
  return new Promise(() => {});
}

function answer(run: Run, batch: OpenBatch, error: StarlingError | null): void {
  const waiter = run.waiters.get(batch);
  run.waiters.delete(batch);
  if (error === null) waiter?.resolve(batch);
  else waiter?.reject(error);
}

function busy(what: string): StarlingError {
  return new StarlingError("BUSY", `the node has ${what} without a session in hand: send again, later`);
}
