import type { ServerDuplexStream } from "@grpc/grpc-js";
import type { Engine } from "../../actors/engine.ts";
import { bytesOfField, hashFields } from "../../actors/sessions/batch-hash.ts";
import type { BatchMeter } from "../../actors/sessions/batch-meter.ts";
import type { OpenBatch } from "../../actors/sessions/session.ts";
import {
  createStreamState,
  type NodeMessageInit,
  type StreamEffect,
  type StreamLimits,
  type StreamMessage,
  type StreamState,
  stepStream,
} from "../../actors/sessions/stream.ts";
import type { Clock } from "../../proto/clock.ts";
import { AckLevel, type Batch } from "../../proto/gen/starling_pb.ts";
import type { SessionId, ShardId } from "../../proto/ids.ts";
import type { PlainBatch, ReadMessage } from "../../proto/read-batch.ts";
import { StarlingError, toStarlingError } from "../../proto/starling-error.ts";
import { unreachable } from "../../proto/unreachable.ts";
import type { Caller } from "./gate.ts";
import { resetCall } from "./http2-door.ts";
import { type Received, traceparentOf, Unreadable } from "./service.ts";

export type IngestCall = ServerDuplexStream<Received<ReadMessage> | Unreadable, NodeMessageInit>;

export interface IngestSessionOptions {
  readonly engine: Engine;
  readonly clock: Clock;
  /** Asked before each batch whether it still may. */
  readonly caller: Caller;
  readonly limits: StreamLimits;
  readonly meter: BatchMeter;
  /** Bound on the time before the hello, and on the time in which a client reads nothing. */
  readonly helloMs: number;
  readonly stalledMs: number;
  /** How often it is noted that its session is in use. */
  readonly useEveryMs: number;
  /** The stream serves this session from now on: an older one has to go. */
  readonly onWelcome: (session: SessionId, opening: number) => void;
  readonly onEnd: () => void;
}

/** One stream on the node's side: performs what `stepStream` decides. Ends with the call, and with nothing left behind. */
export class IngestSession {
  readonly #call: IngestCall;
  readonly #options: IngestSessionOptions;
  readonly #state: StreamState;
  readonly #traceparent: string | null;
  readonly #queue: StreamMessage[] = [];
  readonly #rests = new Set<() => void>();
  /** Batches whose last acknowledgement is not sent. */
  readonly #open = new Set<OpenBatch>();
  #turn: "none" | "wanted" | "planned" = "none";
  /** Messages that the connection has not taken; while there are any, acknowledgements gather (T3). */
  #unsent = 0;
  #cancelWatch: () => void;
  #cancelSettle = () => {};
  #cancelUse = () => {};
  /** Whether a batch has left it since its session was last noted to be in use. */
  #moves = false;
  #status: "open" | "ended" = "open";

  constructor(call: IngestCall, options: IngestSessionOptions) {
    this.#call = call;
    this.#options = options;
    this.#state = createStreamState(options.limits);
    this.#traceparent = traceparentOf(call);
    const text = `there was no hello within ${options.helloMs} ms`;
    this.#cancelWatch = options.clock.after(options.helloMs, () => this.cut(new StarlingError("DEADLINE", text)));
    call.on("data", (received: Received<ReadMessage> | Unreadable) => this.#onData(received));
    call.on("end", () => this.#dispatch({ kind: "ended" }));
    call.on("cancelled", () => this.#release());
    call.on("error", () => this.#release());
    call.on("close", () => this.#release());
  }

  /** Whether its client waits for an answer, or has not read one. */
  get isBusy(): boolean {
    const { settling, status } = this.#state;
    return this.#open.size > 0 || this.#unsent > 0 || settling !== null || status === "opening" || status === "sealing";
  }

  /** Whether its client has closed the session, and is not told yet that it is. */
  get isSealing(): boolean {
    return this.#state.status === "sealing";
  }

  /** Tells the client where to go; what is in flight goes on. */
  leave(addresses: readonly string[]): void {
    this.#dispatch({ kind: "leaving", addresses });
  }

  /** Ends the stream with a problem. */
  cut(error: StarlingError): void {
    this.#dispatch({ kind: "cut", error });
  }

  #onData(received: Received<ReadMessage> | Unreadable): void {
    if (received instanceof Unreadable) return this.cut(received.error);
    const { message, bytes } = received;
    const { kind } = message;
    switch (kind.case) {
      case "hello":
        return this.#dispatch({ kind: "hello", hello: kind.value });
      case "batch":
        return this.#onBatch(kind.value, bytes);
      case "settle":
        return this.#dispatch({ kind: "settle", through: Number(kind.value.through) });
      case "close":
        return this.#dispatch({ kind: "close" });
      case undefined:
        return this.cut(
          new StarlingError("INVALID_ARGUMENT", "a message that is neither hello, batch, settle nor close"),
        );
      default:
        return unreachable(kind);
    }
  }

  #onBatch(batch: Batch | PlainBatch, bytes: Uint8Array): void {
    let read: { readonly bytes: number; readonly hash: string };
    try {
      this.#options.caller.need({ kind: "some", scope: "ingest" });
      const body = bytesOfField(bytes, 2) ?? new Uint8Array(0);
      read = { bytes: body.length, hash: hashFields(body, 3, 4) };
    } catch (error) {
      return this.cut(toStarlingError(error));
    }
    const { atomic, datapoints } = batch;
    const number = Number(batch.number);
    const predecessor = batch.predecessor === undefined ? null : Number(batch.predecessor);
    this.#dispatch({ kind: "batch", batch: { number, predecessor, atomic, datapoints, ...read } });
  }

  /** One message after another, also when an effect brings the next one at once. */
  #dispatch(message: StreamMessage): void {
    if (this.#status === "ended") return;
    this.#queue.push(message);
    if (this.#queue.length > 1) return;
    for (let next = this.#queue[0]; next !== undefined; next = this.#queue[0]) {
      for (const effect of stepStream(this.#state, next)) this.#perform(effect);
      this.#queue.shift();
    }
  }

  #perform(effect: StreamEffect): void {
    const { engine } = this.#options;
    switch (effect.kind) {
      case "open":
        return this.#openSession(effect.session, effect.named);
      case "welcome":
        this.#useSession(effect.session);
        return this.#options.onWelcome(effect.session, effect.opening);
      case "send":
        return this.#send(effect.message);
      case "opened":
        this.#open.add(effect.batch);
        return this.#options.meter.opened(effect.batch, this.#traceparent);
      case "acked":
        return this.#onAcked(effect.level, effect.batches);
      case "offer": {
        const { batch, parts, offer } = effect;
        return engine.offer(parts, (news) => {
          this.#dispatch({ kind: "tracks", message: { kind: "news", batch, offer, news } });
        });
      }
      case "rest":
        return this.#rest(effect.shard, effect.ms);
      case "settle": {
        const { channel, through } = effect;
        this.#cancelSettle = engine.settle(channel, through, (settled) => this.#dispatch({ kind: "settled", settled }));
        return;
      }
      case "turn":
        return this.#askTurn();
      case "close-session":
        return this.#closeSession(effect.session);
      case "end":
        this.#call.end();
        return this.#release();
      default:
        return unreachable(effect);
    }
  }

  #onAcked(level: AckLevel, batches: readonly OpenBatch[]): void {
    const { meter } = this.#options;
    for (const batch of batches) {
      if (level === AckLevel.PROCESSED) meter.processed(batch);
      else meter.durable(batch);
      if (level === this.#state.level) this.#close(batch);
    }
  }

  #close(batch: OpenBatch): void {
    this.#moves = true;
    this.#open.delete(batch);
    this.#options.meter.closed(batch);
  }

  #openSession(session: string, named: boolean): void {
    this.#cancelWatch();
    // Nothing is read until the session is open, so that nothing piles up.
    this.#call.pause();
    const { engine, caller } = this.#options;
    engine.openSession(session, { named, holder: caller.holder }).then(
      (stored) => {
        this.#dispatch({ kind: "session", stored });
        this.#call.resume();
      },
      (error: unknown) => this.cut(toStarlingError(error)),
    );
  }

  /**
   * Notes time and again that the session is in use, unless a batch was stuck all that time: so whatever may still be repeated is
   * younger than the session's life (`session-life.ts`). A note that fails is made the next time.
   */
  #useSession(session: SessionId): void {
    const { engine, clock, useEveryMs } = this.#options;
    this.#cancelUse = clock.after(useEveryMs, () => {
      if (this.#moves || this.#open.size === 0) engine.useSession(session).catch(() => undefined);
      this.#moves = false;
      this.#useSession(session);
    });
  }

  #closeSession(session: SessionId): void {
    this.#options.engine.closeSession(session).then(
      () => this.#dispatch({ kind: "session-closed" }),
      (error: unknown) => this.cut(toStarlingError(error)),
    );
  }

  #send(message: NodeMessageInit): void {
    if (this.#status === "ended") return;
    this.#unsent += 1;
    this.#call.write(message, () => this.#onSent());
    if (this.#unsent > 1) return;
    this.#cancelWatch();
    const { clock, stalledMs } = this.#options;
    this.#cancelWatch = clock.after(stalledMs, () => {
      // A problem could not be read either: the call is cut off.
      resetCall(this.#call);
      this.#release();
    });
  }

  #onSent(): void {
    this.#unsent -= 1;
    if (this.#unsent > 0 || this.#status === "ended") return;
    this.#cancelWatch();
    this.#planTurn();
  }

  #askTurn(): void {
    if (this.#turn === "none") this.#turn = "wanted";
    this.#planTurn();
  }

  #planTurn(): void {
    if (this.#turn !== "wanted" || this.#unsent > 0) return;
    this.#turn = "planned";
    this.#options.clock.soon(() => {
      this.#turn = "none";
      this.#dispatch({ kind: "turn" });
    });
  }

  #rest(shard: ShardId, ms: number): void {
    const cancel = this.#options.clock.after(ms, () => {
      this.#rests.delete(cancel);
      this.#dispatch({ kind: "tracks", message: { kind: "rested", shard } });
    });
    this.#rests.add(cancel);
  }

  #release(): void {
    if (this.#status === "ended") return;
    this.#status = "ended";
    this.#cancelWatch();
    this.#cancelSettle();
    this.#cancelUse();
    for (const cancel of this.#rests) cancel();
    this.#rests.clear();
    for (const batch of this.#open) this.#close(batch);
    this.#options.onEnd();
  }
}
