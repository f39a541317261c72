import { type EncodedBatch, encodeBatchMessage, encodeSettleMessage } from "./client-batch.ts";
import { type Ack, AckLevel } from "./gen/starling_pb.ts";
import { SendWindow, type WindowLimits } from "./send-window.ts";
import { type StarlingError, toStarlingError } from "./starling-error.ts";

/** Where a batch stands in the log of a shard: a read with this token sees it. */
export interface ClientToken {
  readonly shard: number;
  readonly epoch: number;
  readonly seq: number;
}

export interface ClientRejection {
  readonly index: number;
  readonly code: string;
  readonly message: string;
}

/** What became of one batch, at the session's level. */
export interface BatchOutcome {
  readonly number: number;
  readonly count: number;
  readonly accepted: number;
  readonly rejections: readonly ClientRejection[];
  /** Of the acknowledgement that held the batch: they cover it, and perhaps its neighbours. */
  readonly tokens: readonly ClientToken[];
  readonly obligations: number;
}

export interface ClientSessionOptions {
  readonly startNumber: number;
  readonly level: AckLevel;
  /** What may be unacknowledged at once, whatever the node allows. */
  readonly window: WindowLimits;
}

/** The open connection as the session sees it. */
export interface SessionLink {
  /** False: no more until `onDrain`. */
  write(message: Buffer): boolean;
  readonly creditBatches: number;
  readonly creditBytes: number;
  /** Whether the node settles what an earlier connection said is durable. */
  readonly settles: boolean;
}

interface Pending {
  readonly number: number;
  readonly batch: EncodedBatch;
  /** Acknowledged as durable at least once: it takes no place of the sender any more. */
  durable: boolean;
  /** Holds credits of the present connection. */
  charged: boolean;
  rejections: readonly ClientRejection[];
  readonly resolve: (outcome: BatchOutcome) => void;
  readonly reject: (error: StarlingError) => void;
  readonly settled: Promise<unknown>;
}

/**
 * The sender's side of a session, without the wire: numbers batches, keeps them until they are acknowledged at the
 * session's level, and after a break sends all that are not durable, in order, before anything new (R9). Those that are, and
 * wait to be processed, are the oldest, since acknowledgements come in order: of them the node is asked by one number. A
 * node that does not know this question gets them again as well.
 */
export class ClientSession {
  readonly #level: AckLevel;
  readonly #window: SendWindow;
  /** In the order of their numbers; those below `#next` were sent, or asked for, on the present connection. */
  readonly #pending: Pending[] = [];
  #next = 0;
  #lastSent: number | null = null;
  #number: number;
  #link: SessionLink | null = null;
  #writable = true;
  #usedBatches = 0;
  #usedBytes = 0;
  #failure: StarlingError | null = null;

  constructor(options: ClientSessionOptions) {
    this.#level = options.level;
    this.#window = new SendWindow(options.window);
    this.#number = options.startNumber;
  }

  /** Batches that have not reached the session's level. */
  get unacknowledged(): number {
    return this.#pending.length;
  }

  /** Batches that were sent on the present connection and are not durable yet. */
  get inFlight(): number {
    let count = 0;
    for (let at = 0; at < this.#next; at++) if (this.#pending[at]?.durable === false) count++;
    return count;
  }

  get failure(): StarlingError | null {
    return this.#failure;
  }

  /**
   * Waits for a place, first come first served, and sends the batch. What the first promise gives holds the second: the
   * batch's outcome at the session's level.
   */
  async add(batch: EncodedBatch): Promise<{ readonly number: number; readonly outcome: Promise<BatchOutcome> }> {
    const place = this.#failure === null ? this.#window.enter(batch.count) : null;
    if (place !== null) await place;
    if (this.#failure !== null) throw this.#failure;
    const number = this.#number;
    this.#number += 1;
    const { outcome, resolve, reject } = promiseOfOutcome();
    // Whoever does not wait for it hears of a failure at the next call.
    const settled = outcome.catch(() => {});
    this.#pending.push({ number, batch, durable: false, charged: false, rejections: [], resolve, reject, settled });
    this.#pump();
    return { number, outcome };
  }

  /** Resolves when nothing is unacknowledged, or the session has failed. */
  async settled(): Promise<void> {
    while (this.#pending.length > 0 || this.#window.isWaitedFor) {
      await Promise.allSettled(this.#pending.map((pending) => pending.settled));
      await Promise.resolve();
    }
  }

  /** A connection is welcome: everything that is not durable goes again. */
  onConnected(link: SessionLink): void {
    this.#link = link;
    this.#next = link.settles ? this.#countDurable() : 0;
    this.#lastSent = null;
    this.#usedBatches = 0;
    this.#usedBytes = 0;
    for (const pending of this.#pending) pending.charged = false;
    const settling = this.#pending[this.#next - 1];
    this.#writable = settling === undefined || link.write(encodeSettleMessage(settling.number));
    this.#pump();
  }

  onDisconnected(): void {
    this.#link = null;
  }

  /** Sends nothing more on the present connection. */
  pause(): void {
    this.#link = null;
  }

  onDrain(): void {
    this.#writable = true;
    this.#pump();
  }

  /** Returns the acknowledgement as it is told on: one that settles names no first batch, and counts nothing. */
  onAck(ack: Ack): Ack {
    const first = Number(ack.first);
    const last = Number(ack.last);
    const rejections = new Map(ack.rejections.map((one) => [Number(one.number), one.rejections]));
    const start = this.#pending.findIndex((pending) => pending.number >= first);
    if (start < 0) return ack;
    let accepted = 0;
    let end = start;
    for (; end < this.#next; end++) {
      const pending = this.#pending[end];
      if (pending === undefined || pending.number > last) break;
      const refused = rejections.get(pending.number);
      if (refused !== undefined) pending.rejections = refused.map(rejectionOf);
      accepted += pending.batch.count - pending.rejections.length;
      this.#onDurable(pending);
      if (ack.level === this.#level) pending.resolve(outcomeOf(pending, ack));
    }
    const oldest = BigInt(this.#pending[0]?.number ?? last);
    const told = first > 0 ? ack : { ...ack, first: oldest, accepted: BigInt(accepted) };
    if (ack.level === this.#level) {
      this.#pending.splice(start, end - start);
      this.#next -= end - start;
    }
    this.#pump();
    return told;
  }

  /** Nothing will be sent any more: all who wait get the error. */
  fail(error: unknown): void {
    this.#failure ??= toStarlingError(error);
    this.#link = null;
    for (const pending of this.#pending.splice(0)) pending.reject(this.#failure);
    this.#window.fail(this.#failure);
  }

  /** How many of the oldest are durable. */
  #countDurable(): number {
    const undurable = this.#pending.findIndex(({ durable }) => !durable);
    return undurable < 0 ? this.#pending.length : undurable;
  }

  #onDurable(pending: Pending): void {
    if (pending.charged) {
      pending.charged = false;
      this.#usedBatches -= 1;
      this.#usedBytes -= pending.batch.content.length;
    }
    if (pending.durable) return;
    pending.durable = true;
    this.#window.leave(pending.batch.count);
  }

  #pump(): void {
    const link = this.#link;
    while (link !== null && this.#writable) {
      const pending = this.#pending[this.#next];
      if (pending === undefined || !this.#hasCredit(link, pending.batch.content.length)) return;
      const message = encodeBatchMessage(pending.batch, pending.number, this.#lastSent);
      pending.charged = true;
      this.#usedBatches += 1;
      this.#usedBytes += pending.batch.content.length;
      this.#lastSent = pending.number;
      this.#next += 1;
      this.#writable = link.write(message);
    }
  }

  #hasCredit(link: SessionLink, bytes: number): boolean {
    if (this.#usedBatches === 0) return true;
    // The node counts the numbers before the content as well.
    const room = link.creditBytes - this.#usedBytes - 32 * (this.#usedBatches + 1);
    return this.#usedBatches < link.creditBatches && bytes <= room;
  }
}

function promiseOfOutcome() {
  let resolve: (outcome: BatchOutcome) => void = () => {};
  let reject: (error: StarlingError) => void = () => {};
  const outcome = new Promise<BatchOutcome>((go, fail) => {
    resolve = go;
    reject = fail;
  });
  return { outcome, resolve, reject };
}

function rejectionOf({ index, code, message }: ClientRejection): ClientRejection {
  return { index, code, message };
}

function outcomeOf(pending: Pending, ack: Ack): BatchOutcome {
  const { number, batch, rejections } = pending;
  const tokens = ack.tokens.map(({ shard, epoch, seq }) => ({ shard, epoch: Number(epoch), seq: Number(seq) }));
  const accepted = batch.count - rejections.length;
  const obligations = ack.level === AckLevel.PROCESSED ? ack.obligations : 0;
  return { number, count: batch.count, accepted, rejections, tokens, obligations };
}
