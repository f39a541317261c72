import { create, toBinary } from "@bufbuild/protobuf";
import { type ClientDatapoint, encodeBatches } from "../../proto/client-batch.ts";
import { type BatchOutcome, ClientSession } from "../../proto/client-session.ts";
import type { Clock } from "../../proto/clock.ts";
import { type AckLevel, ClientMessageSchema, type NodeMessage } from "../../proto/gen/starling_pb.ts";
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
  #sending: "on" | "over" = "on";
  #sessionId: string;
  breaks = 0;

  constructor(options: SimClientOptions) {
    this.#options = options;
    this.#sessionId = options.name;
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
        },
        (error: unknown) => onError(`${this.#options.name}: ${String(error)}`),
      );
    }
    this.#sending = "over";
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
      onEnd: guard(() => this.#onBreak("ended")),
    });
    this.#stream = stream;
    if (stream === null)
      return void this.#options.clock.after(
        1,
        guard(() => this.#onBreak("refused")),
      );
    const hello = {
      versionMin: 1,
      versionMax: 1,
      session: this.#sessionId,
      named: true,
      level: this.#options.level,
      clusterId: "",
    };
    stream.write(
      Buffer.from(
        toBinary(ClientMessageSchema, create(ClientMessageSchema, { kind: { case: "hello", value: hello } })),
      ),
    );
  }

  #onMessage({ kind }: NodeMessage): void {
    this.#heardMs = this.#options.clock.now();
    if (kind.case === "welcome") {
      const stream = this.#stream;
      this.#failures = 0;
      const { creditBatches, creditBytes, settles } = kind.value;
      const write = (message: Buffer): boolean => {
        stream?.write(message);
        return true;
      };
      this.#session.onConnected({ creditBatches, creditBytes, settles, write });
    } else if (kind.case === "ack") this.#session.onAck(kind.value);
    else if (kind.case === "leaving") this.#onBreak("leaving");
    else if (kind.case === "problem") {
      const { code, message, retryable } = kind.value;
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
      const waits = this.#stream !== null && (this.#session.unacknowledged > 0 || this.#failures > 0);
      if (!waits) this.#heardMs = clock.now();
      else if (clock.now() - this.#heardMs > patienceMs) this.#onBreak("silent");
      if (!this.isDone) this.#watch();
    });
  }
}
