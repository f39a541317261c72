import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import type { Links } from "../../cluster/links/links.ts";
import type { Ownership } from "../../cluster/owner-table.ts";
import type { Clock } from "../../proto/clock.ts";
import {
  type Answer,
  type AnswerSchema,
  type PeerMessage,
  PeerMessageSchema,
  type Question,
  type QuestionSchema,
} from "../../proto/gen/peer_pb.ts";
import type { NodeId, ShardId } from "../../proto/ids.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import type { Counters } from "../counters.ts";
import type { Part, PartListener } from "../lane/part.ts";
import type { Traces } from "../traces.ts";
import { OutgoingNews } from "./peer-news.ts";
import { groupOffers, writeOffer } from "./peer-parts.ts";
import { IncomingPieces, type MessageKind, OutgoingMessages } from "./peer-pieces.ts";
import { bytesOfAnswer } from "./peer-record.ts";
import { PeerSlots } from "./peer-slots.ts";

/**
 * What this node has to do with another one over one connection: from `onUp` to `onDown` of the link. What comes up in
 * one turn of the event loop travels together, as one message of answers and one of questions, unless it is large.
 *
 *  C1  Offers leave in the order in which they were made. When the link does not take one, it and all behind it are
 *      refused: none overtakes another.
 *  C2  Questions (offers too) that the link does not take are refused at once, with a code that says "try again".
 *      Answers wait for the link: who asked cannot do without them. They are bounded by what the other node may ask.
 *      What has begun to go in pieces goes on (`peer-pieces.ts`), and answers and news of later turns come behind it.
 *  C3  Everything that waits for the other node is told UNAVAILABLE when the connection ends. Both nodes number their
 *      connections, questions carry the number and answers repeat it: what belongs to a former one is ignored.
 */
export class PeerConnection {
  readonly peer: NodeId;
  /** Of all of this node's connections; from 1. */
  readonly number: number;
  /** The other node's number; 0 before it has said anything. */
  theirs = 0;
  readonly #world: ConnectionWorld;
  readonly #slots: PeerSlots;
  readonly #questions = new Map<number, OnAnswer>();
  #lastQuestion = 0;
  #outgoing = createOutgoing();
  readonly #messages: OutgoingMessages;
  readonly #pieces = new IncomingPieces();
  #status: "up" | "down" = "up";
  #turn: "none" | "asked" = "none";
  readonly #wakes = new Set<() => void>();

  constructor(peer: NodeId, number: number, world: ConnectionWorld) {
    this.peer = peer;
    this.number = number;
    this.#world = world;
    this.#slots = new PeerSlots(world.limits.peerMaxParts);
    this.#messages = new OutgoingMessages({
      clock: world.clock,
      send: (body) => world.links.send(peer, body),
      writePiece: (piece) => this.#write({ piece }),
      onOverdue: () => this.#planTurn(),
    });
  }

  get isUp(): boolean {
    return this.#status === "up";
  }

  /** Parts and questions that wait for the other node. */
  get waiting(): { readonly parts: number; readonly questions: number } {
    return { parts: this.#slots.size, questions: this.#questions.size };
  }

  /** Offers parts to the other node; false: too many wait for it. Never tells the listener at once. */
  offer(parts: readonly Part[], listener: PartListener): boolean {
    const slots = this.#status === "up" ? this.#slots.take(parts, listener) : null;
    if (slots === null) return false;
    this.#outgoing.offers.push({ parts, slots });
    this.#planTurn();
    return true;
  }

  /**
   * Asks; `onAnswer` is called with each answer until {@link forget}, or once with why there is none. Raises BUSY,
   * UNAVAILABLE.
   */
  ask(kind: QuestionInit["kind"], onAnswer: OnAnswer): number {
    if (this.#status === "down") throw new StarlingError("UNAVAILABLE", "the link to the shard's owner broke");
    if (this.#questions.size >= this.#world.limits.peerMaxQuestions) throw busy("questions");
    const id = ++this.#lastQuestion;
    this.#questions.set(id, onAnswer);
    this.#outgoing.questions.push({ id, kind });
    this.#planTurn();
    return id;
  }

  /** No more answers to a question. `tell`: the other node need not go on with it. */
  forget(id: number, tell: "tell" | "silent"): void {
    if (!this.#questions.delete(id) || tell === "silent" || this.#status === "down") return;
    this.#outgoing.questions.push({ id, kind: { case: "end", value: true } });
    this.#planTurn();
  }

  /** Answers a question of the other node's connection `to`. */
  answer(to: number, answer: AnswerInit): void {
    if (to !== this.theirs) return;
    this.#outgoing.answers.push(answer);
    this.#planTurn();
  }

  /** The news for the other node's connection `to`; null: that has ended. */
  newsFor(to: number): OutgoingNews | null {
    if (to !== this.theirs || this.#status === "down") return null;
    this.#planTurn();
    return this.#outgoing.news;
  }

  /** Tells owners of shards. */
  tellOwners(news: Iterable<Ownership>): void {
    for (const each of news) this.#outgoing.owners.set(each.shard, each);
    this.#planTurn();
  }

  /** Tells that a session was opened here. */
  tellSession(session: string, opening: number): void {
    const { sessions } = this.#outgoing;
    if (sessions.size >= sessionsMax) {
      // The older stream goes on beside the newer one, which costs repeats; its parts are told apart by their numbers.
      this.#world.counters.add("peer/sessions_untold");
      return;
    }
    sessions.set(session, opening);
    this.#planTurn();
  }

  /** Tells that a tick runs. */
  tellTick(tick: number): void {
    this.#outgoing.tick = tick;
    this.#planTurn();
  }

  tellFlushedUpTo(at: number): void {
    this.#outgoing.flushedUpTo = at;
    this.#planTurn();
  }

  /** Settles when the link takes answers, or the connection has ended. */
  async ready(): Promise<void> {
    while (!this.#messages.isClear && this.#status === "up") {
      await new Promise<void>((resolve) => void this.#wakes.add(resolve));
    }
  }

  /** A message of the other node came: what answers this one goes to who waits for it. */
  hear({ connection, news, answers, answersTo }: PeerMessage): void {
    if (connection !== this.theirs) this.#meet(connection);
    if (answersTo !== this.number) {
      if (news !== undefined || answers.length > 0) this.#world.counters.add("peer/late_answers");
      return;
    }
    if (news !== undefined) this.#world.counters.add("peer/late_news", this.#slots.hear(news));
    for (const answer of answers) this.#hear(answer);
  }

  #hear(answer: Answer): void {
    const onAnswer = this.#questions.get(answer.id);
    if (onAnswer !== undefined) return onAnswer(answer);
    this.#world.counters.add("peer/late_answers");
    if (answer.kind.case !== "rows") return;
    // The link may not have taken the end of this follow.
    this.#outgoing.questions.push({ id: answer.id, kind: { case: "end", value: true } });
    this.#planTurn();
  }

  /** Tells everybody who waits that nothing will come. Idempotent. */
  end(error: StarlingError): void {
    if (this.#status === "down") return;
    this.#status = "down";
    this.#outgoing = createOutgoing();
    this.#messages.clear();
    this.#wake();
    this.#slots.refuseAll(error);
    const questions = [...this.#questions.values()];
    this.#questions.clear();
    for (const onAnswer of questions) onAnswer(error);
  }

  /** The other node counts from anew: answers to what it asked before would be taken for others. */
  #meet(connection: number): void {
    this.theirs = connection;
    this.#outgoing.answers = [];
    this.#outgoing.news = new OutgoingNews();
  }

  #planTurn(): void {
    if (this.#turn === "asked" || this.#status === "down") return;
    this.#turn = "asked";
    this.#world.clock.soon(() => {
      this.#turn = "none";
      if (this.#status === "down") return;
      this.#messages.flush();
      if (this.#messages.isClear) this.#wake();
      while (this.#messages.isClear && this.#hasAnswers()) this.#sendAnswers();
      this.#sendQuestions();
    });
  }

  #hasAnswers(): boolean {
    const { news, answers, owners, sessions, flushedUpTo, tick } = this.#outgoing;
    return !news.isEmpty || answers.length + owners.size + sessions.size + tick > 0 || flushedUpTo !== undefined;
  }

  /** One message with all there is; of the answers as many as fit. */
  #sendAnswers(): void {
    const { news, owners, sessions, flushedUpTo, tick } = this.#outgoing;
    const told = news.isEmpty ? {} : { news: news.take() };
    const nobody = [...owners.values()].map(({ shard, epoch, owner }) => ({ shard, epoch, owner: owner ?? undefined }));
    const message = {
      ...told,
      answers: this.#takeAnswers(),
      owners: nobody,
      sessions: [...sessions].map(([session, opening]) => ({ session, opening })),
      ...{ flushedUpTo, tick },
    };
    this.#outgoing.flushedUpTo = undefined;
    this.#outgoing.tick = 0;
    owners.clear();
    sessions.clear();
    this.#messages.sendOrKeep("answers", this.#write(message));
  }

  /** The first answers, as many as fit into one message. */
  #takeAnswers(): AnswerInit[] {
    const { answers } = this.#outgoing;
    let bytes = 0;
    const end = answers.findIndex((answer, index) => {
      bytes += bytesOfAnswer(answer);
      return index > 0 && bytes > messageMaxBytes;
    });
    if (end >= 0) return answers.splice(0, end);
    this.#outgoing.answers = [];
    return answers;
  }

  #sendQuestions(): void {
    const { offers, questions } = this.#outgoing;
    const { traces } = this.#world;
    this.#outgoing.questions = [];
    this.#outgoing.offers = [];
    if (questions.length > 0 && !this.#send("questions", { questions })) {
      for (const { id, kind } of questions) {
        // Of a follow that ended unheard the other node learns when its next rows are nobody's.
        if (kind?.case !== "end") this.#fail(id ?? 0);
      }
    }
    let taken = true;
    for (const some of chunk(offers)) {
      taken &&= this.#send("offers", { offers: some.map(({ parts, slots }) => writeOffer(parts, slots, traces)) });
      if (!taken) for (const { slots } of some) this.#slots.refuse(slots, busy("bytes"));
    }
  }

  #fail(id: number): void {
    const onAnswer = this.#questions.get(id);
    this.#questions.delete(id);
    onAnswer?.(busy("bytes"));
  }

  #send(kind: MessageKind, message: MessageInitShape<typeof PeerMessageSchema>): boolean {
    if (this.#status === "down") return false;
    const sent = this.#messages.send(kind, this.#write(message));
    if (!sent) this.#world.counters.add("peer/link_full");
    return sent;
  }

  /** The message that a message of the other node is, or that its pieces make; null: pieces are missing. */
  join(message: PeerMessage): PeerMessage | null {
    if (message.piece === undefined) return message;
    const body = this.#pieces.add(message.piece);
    return body === null ? null : fromBinary(PeerMessageSchema, body);
  }

  #write(message: MessageInitShape<typeof PeerMessageSchema>): Uint8Array {
    const both = { ...message, connection: this.number, answersTo: this.theirs };
    return toBinary(PeerMessageSchema, create(PeerMessageSchema, both));
  }

  #wake(): void {
    const wakes = [...this.#wakes];
    this.#wakes.clear();
    for (const wake of wakes) wake();
  }
}

export interface ConnectionWorld {
  readonly links: Pick<Links, "send">;
  readonly clock: Clock;
  readonly counters: Counters;
  readonly limits: ConnectionLimits;
  /** Set where tasks are traced. */
  readonly traces?: Traces | undefined;
}

export interface ConnectionLimits {
  /** Parts that wait for one peer, until they are processed there; beyond, BUSY. */
  readonly peerMaxParts: number;
  /** Questions that wait for one peer, and that one peer may have waiting here; beyond, BUSY. */
  readonly peerMaxQuestions: number;
}

export type AnswerInit = MessageInitShape<typeof AnswerSchema>;
export type QuestionInit = MessageInitShape<typeof QuestionSchema>;
export type { Answer, Question };

/** What comes back of a question: an answer, or why there is none. */
export type OnAnswer = (answer: Answer | StarlingError) => void;

interface Outgoing {
  offers: { readonly parts: readonly Part[]; readonly slots: readonly number[] }[];
  questions: QuestionInit[];
  news: OutgoingNews;
  answers: AnswerInit[];
  readonly owners: Map<ShardId, Ownership>;
  readonly sessions: Map<string, number>;
  flushedUpTo: number | undefined;
  /** 0: none. */
  tick: number;
}

/** Sessions that were opened since the link last took something. */
const sessionsMax = 10_000;
/** Size in memory of the parts, or the answers, of one message; a single one may be larger. */
const messageMaxBytes = 1024 * 1024;

function createOutgoing(): Outgoing {
  const news = new OutgoingNews();
  return {
    offers: [],
    questions: [],
    news,
    answers: [],
    owners: new Map(),
    sessions: new Map(),
    flushedUpTo: undefined,
    tick: 0,
  };
}

/** Offers by message, each of one batch. */
function chunk(offers: Outgoing["offers"]): Outgoing["offers"][] {
  const chunks: Outgoing["offers"][] = [];
  let last: Outgoing["offers"] = [];
  // The first group begins a message whatever its size: a part that is known to be durable is offered without its tasks.
  let bytes = Number.POSITIVE_INFINITY;
  for (const { parts, slots } of offers) {
    let from = 0;
    for (const group of groupOffers(parts, messageMaxBytes)) {
      const size = group.reduce((sum, part) => sum + part.bytes, 0);
      if (bytes + size > messageMaxBytes) {
        last = [];
        chunks.push(last);
        bytes = 0;
      }
      last.push({ parts: group, slots: slots.slice(from, from + group.length) });
      from += group.length;
      bytes += size;
    }
  }
  return chunks;
}

function busy(what: "questions" | "bytes"): StarlingError {
  return new StarlingError("BUSY", `too many ${what} are on their way to the shard's owner`);
}
