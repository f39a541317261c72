import type { Engine } from "../../actors/engine.ts";
import { splitBatch } from "../../actors/sessions/batch.ts";
import { hashFields } from "../../actors/sessions/batch-hash.ts";
import { type BatchMeter, createBatchMeter } from "../../actors/sessions/batch-meter.ts";
import { type CallSession, replyOf } from "../../actors/sessions/call-session.ts";
import type { StreamLimits } from "../../actors/sessions/stream.ts";
import { looseOf, type WireDatapoint } from "../../actors/sessions/wire-datapoint.ts";
import { closedSession } from "../../actors/store/session.ts";
import type { LooseDatapoint } from "../../modules/datapoint.ts";
import type { Clock } from "../../proto/clock.ts";
import { AckLevel, type Ingest, type SendRequest } from "../../proto/gen/starling_pb.ts";
import type { SessionId } from "../../proto/ids.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import type { Caller } from "./gate.ts";
import { type IngestCall, IngestSession } from "./ingest-session.ts";
import type { CallContext, Handlers, Received } from "./service.ts";

export interface IngestOptions {
  readonly engine: Engine;
  readonly clock: Clock;
  readonly limits: StreamLimits;
  readonly calls: CallSession;
  /** Default: one that counts with the engine's counters. */
  readonly meter?: BatchMeter;
  readonly helloMs: number;
  readonly stalledMs: number;
  readonly useEveryMs: number;
  readonly lookEveryMs: number;
  readonly maxStreams: number;
}

/** The streams that a node serves, one per session at most, and the calls without a session. */
export class IngestService {
  readonly handlers: Handlers<typeof Ingest> = {
    stream: (call, caller) => this.#onStream(call, caller),
    send: (request, context) => this.#onSend(request, context),
  };
  readonly #options: IngestOptions;
  readonly #meter: BatchMeter;
  readonly #streams = new Set<IngestSession>();
  readonly #bySession = new Map<SessionId, { readonly stream: IngestSession; readonly opening: number }>();
  #addresses: readonly string[] | null = null;
  #closed: StarlingError | null = null;
  #cancelLook: (() => void) | null = null;

  constructor(options: IngestOptions) {
    this.#options = options;
    this.#meter = options.meter ?? createBatchMeter({ counters: options.engine.counters, clock: options.clock });
  }

  /** Streams that are open now. */
  get streams(): number {
    return this.#streams.size;
  }

  /** Whether something is in flight in one of them. */
  get isBusy(): boolean {
    return [...this.#streams].some(({ isBusy }) => isBusy);
  }

  /** Sends all clients, also those that come later, to other nodes. */
  leave(addresses: readonly string[]): void {
    this.#addresses = addresses;
    for (const stream of this.#streams) stream.leave(addresses);
  }

  /** Another node has opened a session: a stream of an earlier opening here has to go. News may come late. */
  take(session: SessionId, opening: number): void {
    const served = this.#bySession.get(session);
    if (served === undefined || served.opening === opening) return;
    // Our opening is newer: the other node was slower to welcome, and does not know.
    if (served.opening > opening) return this.#options.engine.tellSession(session, served.opening);
    const text = `a connection to another node has taken session ${session} over`;
    served.stream.cut(new StarlingError("SESSION_TAKEN", text));
  }

  /** Time and again, as long as there are streams. */
  #planLook(): void {
    const { clock, lookEveryMs } = this.#options;
    this.#cancelLook ??= clock.after(lookEveryMs, () => {
      this.#cancelLook = null;
      void this.#look();
    });
  }

  /** Ends the streams whose sessions another connection has closed (R11): it may have had them longer than anybody knows here. */
  async #look(): Promise<void> {
    // A database that does not answer is asked the next time.
    for (const session of await this.#options.engine.findClosed([...this.#bySession.keys()]).catch(() => [])) {
      const stream = this.#bySession.get(session)?.stream;
      // Who closes its session hears so itself.
      if (stream?.isSealing === false) stream.cut(closedSession(session));
    }
    if (this.#bySession.size > 0) this.#planLook();
  }

  /** Ends every stream, also those that come later; clients resume elsewhere. */
  close(error: StarlingError): void {
    this.#closed = error;
    for (const stream of [...this.#streams]) stream.cut(error);
  }

  #onStream(call: IngestCall, caller: Caller): void {
    const { engine, clock, limits, helloMs, stalledMs, useEveryMs, maxStreams } = this.#options;
    let session: SessionId | null = null;
    const stream: IngestSession = new IngestSession(call, {
      engine,
      clock,
      limits: { ...limits, reader: () => readerOf(caller) },
      ...{ caller, meter: this.#meter },
      helloMs,
      stalledMs,
      useEveryMs,
      onWelcome: (opened, opening) => {
        session = opened;
        const other = this.#bySession.get(opened);
        const taken = new StarlingError("SESSION_TAKEN", `another connection has taken session ${opened} over`);
        if (other !== undefined && other.opening > opening) return stream.cut(taken);
        this.#bySession.set(opened, { stream, opening });
        other?.stream.cut(taken);
        // Not before: who greeted may have gone long since, and be served elsewhere.
        engine.tellSession(opened, opening);
        this.#planLook();
        if (this.#addresses !== null) stream.leave(this.#addresses);
      },
      onEnd: () => {
        this.#streams.delete(stream);
        if (session !== null && this.#bySession.get(session)?.stream === stream) this.#bySession.delete(session);
        if (this.#bySession.size > 0) return;
        this.#cancelLook?.();
        this.#cancelLook = null;
      },
    });
    this.#streams.add(stream);
    if (this.#closed !== null) return stream.cut(this.#closed);
    if (this.#streams.size > maxStreams) {
      engine.counters.add("sessions_refused");
      stream.cut(new StarlingError("BUSY", `the node serves ${maxStreams} sessions already`));
    }
  }

  async #onSend(request: Received<SendRequest>, context: CallContext) {
    const { message, bytes } = request;
    const { model, entityShards } = this.#options.limits;
    const { atomic, datapoints, idempotencyKey } = message;
    const content = { atomic, datapoints, bytes: bytes.length, hash: hashFields(bytes, 1, 2) };
    const read = readerOf(context.caller);
    const batch = await this.#options.calls.send(
      ({ channel, number, homeShard }) =>
        splitBatch({ ...content, number }, { model, entityShards, channel, homeShard, read }),
      {
        ...context,
        idempotencyKey,
        hash: content.hash,
        holder: context.caller.holder,
        level: message.level === AckLevel.PROCESSED ? "processed" : "durable",
      },
    );
    return replyOf(batch);
  }
}

/** Reads a datapoint for who may send its type. */
function readerOf(caller: Caller): (datapoint: WireDatapoint) => LooseDatapoint {
  if (caller.isFree("ingest")) return looseOf;
  return (datapoint) => {
    caller.need({ kind: "type", scope: "ingest", type: datapoint.type });
    return looseOf(datapoint);
  };
}
