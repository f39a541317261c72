import type { Clock } from "../../proto/clock.ts";
import type { Piece } from "../../proto/gen/peer_pb.ts";

/** What a message holds: messages of one kind reach the other node in their order. */
export type MessageKind = "answers" | "offers" | "questions";

export interface MessageOutlet {
  readonly clock: Clock;
  /** False: the link does not take it now. */
  readonly send: (body: Uint8Array) => boolean;
  /** A message that holds a piece of another one. */
  readonly writePiece: (piece: Pick<Piece, "index" | "count" | "body">) => Uint8Array;
  /** Something has waited for a while: {@link OutgoingMessages.flush} is to be called. */
  readonly onOverdue: () => void;
}

/**
 * Messages on their way to a link that takes so many bytes at once. A large one goes in pieces, and has begun when the
 * link has taken the first of them: the others wait for it, and each is sent once, so a message of any size passes.
 *
 *  M1  Between the pieces of a message come none of another one, and nothing of its kind.
 *  M2  What waits goes before what comes up: `flush` begins a turn, and is asked for every few ms.
 *  M3  Small messages of other kinds pass between pieces. When a piece has waited for a while offers do so no more until
 *      the link has taken it: else they would fill for good what room there is.
 */
export class OutgoingMessages {
  readonly #outlet: MessageOutlet;
  /** Of one message; whole if it is small. */
  #waiting: Uint8Array[] = [];
  #kind: MessageKind = "answers";
  #patience: "fresh" | "over" = "fresh";
  #cancel: (() => void) | null = null;

  constructor(outlet: MessageOutlet) {
    this.#outlet = outlet;
  }

  /** Whether nothing waits. */
  get isClear(): boolean {
    return this.#waiting.length === 0;
  }

  /** Sends a message or has it wait; only when nothing waits. */
  sendOrKeep(kind: MessageKind, body: Uint8Array): void {
    this.#kind = kind;
    this.#waiting = this.#split(body);
    this.flush();
  }

  /** Sends a message; false: it cannot go now, and nothing of it was sent. */
  send(kind: MessageKind, body: Uint8Array): boolean {
    const isSmall = body.length <= pieceMaxBytes;
    if (!this.isClear && !(isSmall && this.#letsPass(kind))) return false;
    if (isSmall) return this.#outlet.send(body);
    const [first, ...others] = this.#split(body);
    if (first === undefined || !this.#outlet.send(first)) return false;
    this.#kind = kind;
    this.#waiting = others;
    this.flush();
    return true;
  }

  /** Sends what waits, as far as the link takes it. */
  flush(): void {
    const refused = this.#waiting.findIndex((body) => !this.#outlet.send(body));
    const sent = refused < 0 ? this.#waiting.length : refused;
    if (sent > 0) {
      this.#waiting = this.#waiting.slice(sent);
      this.#beginWait();
    }
    if (this.isClear || this.#cancel !== null) return;
    this.#cancel = this.#outlet.clock.after(retryAfterMs, () => {
      this.#cancel = null;
      this.#patience = "over";
      this.#outlet.onOverdue();
    });
  }

  /** Forgets what waits. */
  clear(): void {
    this.#waiting = [];
    this.#beginWait();
  }

  #beginWait(): void {
    this.#patience = "fresh";
    this.#cancel?.();
    this.#cancel = null;
  }

  #letsPass(kind: MessageKind): boolean {
    return kind !== this.#kind && (kind !== "offers" || this.#patience === "fresh");
  }

  #split(body: Uint8Array): Uint8Array[] {
    const count = Math.ceil(body.length / pieceMaxBytes);
    if (count <= 1) return [body];
    return Array.from({ length: count }, (_, index) => {
      const piece = body.subarray(index * pieceMaxBytes, (index + 1) * pieceMaxBytes);
      return this.#outlet.writePiece({ index, count, body: piece });
    });
  }
}

/** The pieces of the message that is coming in. */
export class IncomingPieces {
  #bodies: Uint8Array[] = [];

  /** The message that has come as a whole with this piece; null: pieces are missing. A first piece begins anew. */
  add({ index, count, body }: Piece): Uint8Array | null {
    if (index === 0) this.#bodies = [];
    if (index !== this.#bodies.length) return null;
    this.#bodies.push(body);
    if (this.#bodies.length < count) return null;
    const whole = Buffer.concat(this.#bodies);
    this.#bodies = [];
    return new Uint8Array(whole.buffer, whole.byteOffset, whole.length);
  }
}

/** What a link takes at once. */
const pieceMaxBytes = 4 * 1024 * 1024;
/** What the link does not take is sent again after so long. */
const retryAfterMs = 5;
