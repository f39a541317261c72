import type { MessageInitShape } from "@bufbuild/protobuf";
import type { Dialled } from "./client-call.ts";
import type { Dialler } from "./client-dialler.ts";
import type { ClientSession } from "./client-session.ts";
import { type ClientStream, openClientStream } from "./client-stream.ts";
import type { Clock } from "./clock.ts";
import type { Ack, HelloSchema, Welcome } from "./gen/starling_pb.ts";
import { StarlingError } from "./starling-error.ts";

export interface LinkOptions {
  readonly addresses: readonly string[];
  readonly session: ClientSession;
  /** Empty: the node gives one. */
  readonly sessionId: string;
  readonly named: boolean;
  readonly hello: Pick<MessageInitShape<typeof HelloSchema>, "level" | "clusterId">;
  readonly dialler: Dialler;
  /** The trace (W3C) that everything sent belongs to. */
  readonly traceparent: string | null;
  readonly clock: Clock;
  readonly random: () => number;
  /** How long to go on trying before the first welcome, and after a break. */
  readonly connectMs: number;
  readonly giveUpAfterMs: number;
  readonly onAck: (ack: Ack) => void;
  /** Called when a connection broke or could not be made; another one is tried. */
  readonly onBreak?: ((error: StarlingError) => void) | undefined;
}

const welcomeMinMs = 1_000;
const welcomeMaxMs = 5_000;
const leavingMs = 5_000;
const backoffMinMs = 50;
const backoffMaxMs = 2_000;

/** Keeps a session connected: tries one node after another, greets, hands acknowledgements over, resumes after a break. */
export class ClientLink {
  readonly #options: LinkOptions;
  readonly #waiters: { readonly go: (dialled: Dialled) => void; readonly fail: (error: StarlingError) => void }[] = [];
  #addresses: string[];
  #sessionId: string;
  #dialled: Dialled | null = null;
  #stream: ClientStream | null = null;
  #status: "connecting" | "open" | "leaving" | "closing" | "closed" = "connecting";
  #failures = 0;
  #brokenSinceMs: number;
  #patienceMs: number;
  #lastError: StarlingError | null = null;
  #cancelTimer = () => {};
  #onClosed = () => {};

  constructor(options: LinkOptions) {
    this.#options = options;
    this.#addresses = this.#allowed(options.addresses);
    this.#sessionId = options.sessionId;
    this.#brokenSinceMs = options.clock.now();
    this.#patienceMs = options.connectMs;
    this.#connect();
  }

  get sessionId(): string {
    return this.#sessionId;
  }

  /** The node that the session is connected with; null between two connections. */
  get node(): Dialled | null {
    return this.#status === "open" || this.#status === "leaving" ? this.#dialled : null;
  }

  /** Leaves the present node for the first of these that greets; what is in flight goes again there. */
  move(addresses: readonly string[]): void {
    if (this.#status === "closing" || this.#status === "closed") return;
    this.#addresses = this.#allowed([...addresses, ...this.#addresses]);
    this.#failures = 0;
    if (this.#status === "connecting") return;
    this.#status = "leaving";
    this.#onBreak(null);
  }

  /** The connection to the present node; waits for one. */
  connected(): Promise<Dialled> {
    const { failure } = this.#options.session;
    if (failure !== null) return Promise.reject(failure);
    const dialled = this.#dialled;
    if (dialled !== null && (this.#status === "open" || this.#status === "leaving")) return Promise.resolve(dialled);
    if (this.#status === "closed") return Promise.reject(new StarlingError("UNAVAILABLE", "the client is closed"));
    return new Promise((go, fail) => this.#waiters.push({ go, fail }));
  }

  /** Ends the stream, and a nameless session for good. Everything was acknowledged before. */
  async close(graceMs: number): Promise<void> {
    if (this.#status === "closed" || this.#status === "closing") return;
    const stream = this.#status === "connecting" ? null : this.#stream;
    this.#status = "closing";
    this.#cancelTimer();
    if (stream !== null) {
      await new Promise<void>((resolve) => {
        this.#onClosed = resolve;
        this.#cancelTimer = this.#options.clock.after(graceMs, resolve);
        if (this.#options.named) stream.halfClose();
        else stream.closeSession();
      });
    }
    this.#cancelTimer();
    this.#end(new StarlingError("UNAVAILABLE", "the client is closed"));
  }

  #connect(): void {
    const { clock, dialler, hello, named } = this.#options;
    const address = this.#addresses[this.#failures % this.#addresses.length] ?? "";
    this.#dialled?.grpc.close();
    const dialled = dialler.dial(address);
    this.#dialled = dialled;
    const greeting = { ...hello, versionMin: 1, versionMax: 1, session: this.#sessionId, named };
    const { traceparent } = this.#options;
    const stream = openClientStream(
      dialled,
      greeting,
      {
        onWelcome: (welcome) => this.#onWelcome(welcome, dialled, stream),
        onAck: (ack) => {
          this.#options.onAck(this.#options.session.onAck(ack));
          this.#moveIfDone();
        },
        onLeaving: (addresses) => this.#onLeaving(addresses),
        onDrain: () => this.#options.session.onDrain(),
        onEnd: (error) => {
          if (this.#stream === stream) this.#onBreak(error);
        },
      },
      traceparent,
    );
    this.#stream = stream;
    // One that stands still keeps nobody for long; where all are slow, each is given more time with every failure.
    const patienceMs = Math.min(welcomeMinMs * 2 ** Math.min(this.#failures, 10), welcomeMaxMs);
    this.#cancelTimer = clock.after(patienceMs, () => {
      this.#onBreak(new StarlingError("DEADLINE", `${address} did not greet within ${patienceMs} ms`));
    });
  }

  #onWelcome(welcome: Welcome, dialled: Dialled, stream: ClientStream): void {
    if (this.#status !== "connecting" || this.#stream !== stream) return;
    this.#cancelTimer();
    this.#status = "open";
    this.#failures = 0;
    this.#sessionId = welcome.session;
    // The node that answers first, then what was given, then what the cluster knows.
    this.#addresses = this.#allowed([dialled.address, ...this.#options.addresses, ...welcome.addresses]);
    const { creditBatches, creditBytes, settles } = welcome;
    for (const { go } of this.#waiters.splice(0)) go(dialled);
    this.#options.session.onConnected({
      creditBatches,
      creditBytes,
      settles,
      write: (message) => stream.write(message),
    });
  }

  /** What is in flight becomes durable here; everything else goes to another node, and repeats of what is not processed. */
  #onLeaving(addresses: readonly string[]): void {
    if (this.#status !== "open") return;
    const here = this.#dialled?.address ?? "";
    const others = this.#allowed([...addresses, ...this.#addresses]).filter((one) => one !== here);
    // With nowhere to go the client stays until the node cuts it.
    if (others.length === 0) return;
    this.#status = "leaving";
    this.#addresses = [...others, here];
    this.#options.session.pause();
    this.#cancelTimer = this.#options.clock.after(leavingMs, () => this.#onBreak(null));
    this.#moveIfDone();
  }

  #moveIfDone(): void {
    if (this.#status === "leaving" && this.#options.session.inFlight === 0) this.#onBreak(null);
  }

  /** The connection is lost or given up: again, elsewhere, after a while; or never again. */
  #onBreak(error: StarlingError | null): void {
    this.#cancelTimer();
    const { session, clock } = this.#options;
    const stream = this.#stream;
    this.#stream = null;
    stream?.cancel();
    session.onDisconnected();
    if (this.#status === "closed") return;
    if (this.#status === "closing") return this.#onClosed();
    const moved = this.#status === "leaving";
    if (error !== null) this.#options.onBreak?.(error);
    if (this.#status === "open") this.#addresses = this.#othersFirst();
    if (this.#status === "open" || moved) {
      this.#brokenSinceMs = clock.now();
      this.#patienceMs = this.#options.giveUpAfterMs;
    } else {
      this.#failures += 1;
    }
    this.#lastError = error ?? this.#lastError;
    this.#status = "connecting";
    if (error !== null && !error.retryable) return this.#end(error);
    if (clock.now() - this.#brokenSinceMs > this.#patienceMs) return this.#end(this.#giveUp());
    this.#cancelTimer = clock.after(moved ? backoffMinMs : this.#backoffMs(), () => this.#connect());
  }

  /** Each once. Nodes tell addresses that this client may not use: they are left out. */
  #allowed(addresses: readonly string[]): string[] {
    return [...new Set(addresses)].filter((address) => this.#options.dialler.allows(address));
  }

  /**
   * A node that stands still costs a greeting's time, so others come first; of these what was given, as what the cluster tells
   * may not be reached from here.
   */
  #othersFirst(): string[] {
    const { addresses: given } = this.#options;
    const here = this.#dialled?.address ?? "";
    const isOther = (address: string): boolean => address !== here;
    return this.#allowed([...given.filter(isOther), ...given, ...this.#addresses.filter(isOther), ...this.#addresses]);
  }

  #backoffMs(): number {
    const full = Math.min(backoffMinMs * 2 ** Math.min(this.#failures, 10), backoffMaxMs);
    const left = this.#patienceMs - (this.#options.clock.now() - this.#brokenSinceMs);
    return Math.max(1, Math.min(full * (0.5 + this.#options.random() / 2), left + 1));
  }

  #giveUp(): StarlingError {
    const nodes = this.#addresses.join(", ");
    const reason = this.#lastError === null ? "" : `: ${this.#lastError.message}`;
    const cause = this.#lastError ?? undefined;
    return new StarlingError("UNAVAILABLE", `no node answered within ${this.#patienceMs} ms at ${nodes}${reason}`, {
      cause,
    });
  }

  #end(error: StarlingError): void {
    this.#status = "closed";
    const stream = this.#stream;
    this.#stream = null;
    stream?.cancel();
    this.#dialled?.grpc.close();
    this.#options.session.fail(error);
    for (const { fail } of this.#waiters.splice(0)) fail(error);
  }
}
