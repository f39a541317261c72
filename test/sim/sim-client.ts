import { type ClientDatapoint, encodeBatches } from "../../proto/client-batch.ts";
import { type BatchOutcome, ClientSession } from "../../proto/client-session.ts";
import type { Clock } from "../../proto/clock.ts";
import type { AckLevel, NodeMessage } from "../../proto/gen/starling_pb.ts";
import { type ErrorCode, errorCodes } from "../../proto/starling-error.ts";
import type { SimStream, SimStreamListener } from "./sim-call.ts";

export interface SimClientOptions {
  readonly name: string;
  readonly clock: Clock;
  readonly random: () => number;
  /** The next batch; null: there are no more. */
  readonly next: () => readonly ClientDatapoint[] | null;
  readonly level: AckLevel;
  /** Until the next batch, ms. */
  readonly paceMs: () => number;
  /** A stream to some node; null: nobody answers there. */
  readonly connect: (listener: SimStreamListener) => SimStream | null;
  readonly onAcked: (batch: readonly ClientDatapoint[], outcome: BatchOutcome) => void;
  /** What a user of the client would have seen. */
  readonly onError: (text: string) => void;
  /** Told of more in flight than there may be. */
  readonly onBound: (text: string) => void;
  /** Default: after the client. Empty: a node draws the session's id. */
  readonly session?: string;
  /** Told its session's id when that is closed, which it is when all is acknowledged. Default: it stays. */
  readonly onClosed?: (session: string) => void;
}

/** How long a client waits for anything before it tries another node. */
const patienceMs = 3000;
const windowBatches = 8;

/** A sender of numbered batches over `ClientSession`; after a break it goes on at any node. */
export class SimClient {
  readonly #options: SimClientOptions;
  readonly #session: ClientSession;
  #stream: SimStream | null = null;
  #connection = 0;
  #heardMs = 0;
  #failures = 0;
  #acked = 0;
  #sent = 0;
  #sending: "on" | "over" | "closing" | "closed" = "on";
  #sessionId: string;
  breaks = 0;

  constructor(options: SimClientOptions) {
    this.#options = options;
    this.#sessionId = options.session ?? options.name;
    this.#session = new ClientSession({
      startNumber: 1,
      level: options.level,
      window: { batches: windowBatches, items: Number.POSITIVE_INFINITY },
    });
    this.#connect();
    this.#watch();
    void this.#send();
  }

  get name(): string {
    return this.#options.name;
  }

  get isDone(): boolean {
    if (this.#options.onClosed !== undefined) return this.#sending === "closed";
    return this.#sending === "over" && this.#acked === this.#sent;
  }

  /** Batches that are sent and not acknowledged. */
  get inFlight(): number {
    return this.#session.inFlight;
  }

  get unacknowledged(): number {
    return this.#sent - this.#acked;
  }

  /** Its connection breaks. */
  reconnect(): void {
    if (this.#stream !== null) this.#onBreak("reset");
  }

  async #send(): Promise<void> {
    const { next, clock, paceMs, onAcked, onError, onBound } = this.#options;
    for (let batch = next(); batch !== null; batch = next()) {
      const content = batch;
      this.#sent++;
      await new Promise<void>((resolve) => clock.after(paceMs(), resolve));
      const [encoded] = encodeBatches(batch, false);
      if (encoded === undefined) throw new Error("an empty batch");
      const { outcome } = await this.#session.add(encoded);
      if (this.#session.inFlight > windowBatches)
        onBound(`${this.#options.name} has ${this.#session.inFlight} batches in flight`);
      outcome.then(
        (done) => {
          this.#acked++;
          onAcked(content, done);
          this.#closeIfDone();
        },
        (error: unknown) => onError(`${this.#options.name}: ${String(error)}`),
      );
    }
    this.#sending = "over";
    this.#closeIfDone();
  }

  #closeIfDone(): void {
    if (this.#options.onClosed === undefined || this.#sending !== "over" || this.#acked < this.#sent) return;
    this.#sending = "closing";
    this.#stream?.say({ case: "close", value: {} });
  }

  /** A node has ended the stream as asked for, or says that an earlier one closed the session. */
  #onClosed(): void {
    this.#sending = "closed";
    this.#connection++;
    this.#stream?.cancel();
    this.#stream = null;
    this.#options.onClosed?.(this.#sessionId);
  }

  #connect(): void {
    const connection = ++this.#connection;
    const guard =
      <A extends unknown[]>(run: (...args: A) => void) =>
      (...args: A): void => {
        if (connection === this.#connection) run(...args);
      };
    this.#heardMs = this.#options.clock.now();
    const stream = this.#options.connect({
      onMessage: guard((message) => this.#onMessage(message)),
      onEnd: guard(() => (this.#sending === "closing" ? this.#onClosed() : this.#onBreak("ended"))),
    });
    this.#stream = stream;
    if (stream === null)
      return void this.#options.clock.after(
        1,
        guard(() => this.#onBreak("refused")),
      );
    const named = this.#options.session === undefined;
    const versions = { versionMin: 1, versionMax: 1 };
    const { level } = this.#options;
    stream.say({ case: "hello", value: { ...versions, session: this.#sessionId, named, level, clusterId: "" } });
  }

  #onMessage({ kind }: NodeMessage): void {
    this.#heardMs = this.#options.clock.now();
    if (kind.case === "welcome") {
      const stream = this.#stream;
      this.#failures = 0;
      this.#sessionId = kind.value.session;
      const { creditBatches, creditBytes, settles } = kind.value;
      const write = (message: Buffer): boolean => {
        stream?.write(message);
        return true;
      };
      this.#session.onConnected({ creditBatches, creditBytes, settles, write });
      if (this.#sending === "closing") stream?.say({ case: "close", value: {} });
    } else if (kind.case === "ack") this.#session.onAck(kind.value);
    else if (kind.case === "leaving") this.#onBreak("leaving");
    else if (kind.case === "problem") {
      const { code, message, retryable } = kind.value;
      if (code === "SESSION_CLOSED" && this.#sending === "closing") return this.#onClosed();
      if (!(code in errorCodes ? errorCodes[code as ErrorCode].retry : retryable)) {
        this.#options.onError(`${this.#options.name}: ${code}: ${message}`);
      }
      this.#onBreak(code);
    }
  }

  #onBreak(_why: string): void {
    this.breaks++;
    this.#connection++;
    this.#stream?.cancel();
    this.#stream = null;
    this.#session.onDisconnected();
    const { clock, random } = this.#options;
    const pauseMs = Math.min(50 * 2 ** Math.min(this.#failures++, 4), 500) * (0.5 + random());
    const connection = this.#connection;
    clock.after(pauseMs, () => {
      if (connection === this.#connection) this.#connect();
    });
  }

  /** Stands for keep-alive and patience: a node that says nothing for long while something is expected is left. */
  #watch(): void {
    const { clock } = this.#options;
    clock.after(500, () => {
      const expects = this.#session.unacknowledged > 0 || this.#failures > 0 || this.#sending === "closing";
      const waits = this.#stream !== null && expects;
      if (!waits) this.#heardMs = clock.now();
      else if (clock.now() - this.#heardMs > patienceMs) this.#onBreak("silent");
      if (!this.isDone) this.#watch();
    });
  }
}
