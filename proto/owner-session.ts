import type { EncodedBatch } from "./client-batch.ts";
import type { Dialled } from "./client-call.ts";
import { ClientLink, type LinkOptions } from "./client-link.ts";
import { type BatchOutcome, ClientSession } from "./client-session.ts";
import type { Ack, AckLevel } from "./gen/starling_pb.ts";
import type { WindowLimits } from "./send-window.ts";

export interface OwnerSessionOptions extends Omit<LinkOptions, "session" | "sessionId" | "named" | "onAck"> {
  readonly level: AckLevel;
  readonly window: WindowLimits;
}

/** Told once when a batch is durable, with how many of its datapoints were refused. */
export type OnDurable = (refused: number) => void;

/**
 * A session of its own for what one node owns. It stays the same session, with its order and its numbers, when the node
 * cannot be reached: another one forwards meanwhile.
 */
export class OwnerSession {
  readonly #options: OwnerSessionOptions;
  readonly #session: ClientSession;
  readonly #link: ClientLink;
  /** By number, ascending. */
  readonly #undurable = new Map<number, OnDurable>();
  #heardAtMs: number;
  #expected = 0;

  /** Tries the addresses in turn, the owner's first. */
  constructor(options: OwnerSessionOptions) {
    this.#options = options;
    this.#heardAtMs = options.clock.now();
    this.#session = new ClientSession({ ...options, startNumber: 1 });
    this.#link = new ClientLink({
      ...options,
      session: this.#session,
      sessionId: "",
      named: false,
      onAck: (ack) => this.#onAck(ack),
    });
  }

  get id(): string {
    return this.#link.sessionId;
  }

  /** The node that it is connected with now; null: none. */
  get node(): Dialled | null {
    return this.#link.node;
  }

  /** How long it waits for an answer; 0: for none. */
  get silentMs(): number {
    return this.#session.unacknowledged === 0 ? 0 : this.#options.clock.now() - this.#heardAtMs;
  }

  /** Whether it has nothing to do, now and soon. */
  get isIdle(): boolean {
    return this.#session.unacknowledged === 0 && this.#expected === 0;
  }

  /** A part will be added, or has been: it is not idle meanwhile. */
  expect(parts: 1 | -1): void {
    this.#expected += parts;
  }

  connected(): Promise<Dialled> {
    return this.#link.connected();
  }

  /** As {@link ClientSession.add}. */
  async add(batch: EncodedBatch, onDurable: OnDurable): Promise<{ readonly outcome: Promise<BatchOutcome> }> {
    if (this.#session.unacknowledged === 0) this.#heardAtMs = this.#options.clock.now();
    const { number, outcome } = await this.#session.add(batch);
    this.#undurable.set(number, onDurable);
    return { outcome };
  }

  /** Goes on with the first of these nodes that greets. */
  move(addresses: readonly string[]): void {
    this.#heardAtMs = this.#options.clock.now();
    this.#link.move(addresses);
  }

  /** Everything was acknowledged before. */
  close(graceMs: number): Promise<void> {
    return this.#link.close(graceMs);
  }

  #onAck(ack: Ack): void {
    this.#heardAtMs = this.#options.clock.now();
    const [first, last] = [Number(ack.first), Number(ack.last)];
    for (const [number, onDurable] of this.#undurable) {
      if (number > last) return;
      if (number < first) continue;
      this.#undurable.delete(number);
      const refused = ack.rejections.find((one) => Number(one.number) === number);
      onDurable(refused?.rejections.length ?? 0);
    }
  }
}
