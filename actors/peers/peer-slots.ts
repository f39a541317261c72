import type { PartEvent as WireEvent, News as WireNews } from "../../proto/gen/peer_pb.ts";
import { type ShardId, toEpoch, toSeq } from "../../proto/ids.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import type { Part, PartEvent, PartListener } from "../lane/part.ts";
import { PartNews, type PartOwner } from "../lane/part-news.ts";
import { readRejections } from "./peer-parts.ts";
import { readProblem } from "./peer-problem.ts";

/**
 * The parts that wait for news of them over one connection. Each has a slot, a small number that is given again when
 * the last news of its part has come; so an answer finds its part without any text, and a part costs three list
 * elements.
 */
export class PeerSlots {
  readonly #max: number;
  readonly #listeners: (PartListener | null)[] = [];
  readonly #positions: number[] = [];
  readonly #shards: ShardId[] = [];
  readonly #free: number[] = [];
  /** As the news name them. */
  readonly #owners = new Map<ShardId, PartOwner>();

  /** `max`: parts that may wait at once. */
  constructor(max: number) {
    this.#max = max;
  }

  /** Parts that wait. */
  get size(): number {
    return this.#listeners.length - this.#free.length;
  }

  /** A slot for each part; null: there are not so many. */
  take(parts: readonly Part[], listener: PartListener): number[] | null {
    if (this.size + parts.length > this.#max) return null;
    return parts.map(({ position, shard }) => {
      const slot = this.#free.pop() ?? this.#listeners.length;
      this.#listeners[slot] = listener;
      this.#positions[slot] = position;
      this.#shards[slot] = shard;
      return slot;
    });
  }

  /** Tells every listener its share, all at once; returns how many news belonged to no part. */
  hear(news: WireNews): number {
    const told = new Told(news.appended.length + news.others.length + news.passed.length);
    let late = 0;
    for (const [at, slot] of news.appended.entries()) {
      const listener = this.#listeners[slot] ?? null;
      if (listener === null) late++;
      else {
        const owner = this.#ownerOf(slot, news.epochs[at] ?? 0);
        told.of(listener).addAppended(this.#positions[slot] ?? 0, owner, toSeq(news.seqs[at] ?? 0));
      }
    }
    for (const event of news.others) {
      const listener = this.#listeners[event.slot] ?? null;
      if (listener === null) late++;
      else told.of(listener).add(this.#read(event));
    }
    for (const slot of news.passed) {
      const listener = this.#listeners[slot] ?? null;
      if (listener === null) late++;
      else {
        told.of(listener).addPassed(this.#positions[slot] ?? 0);
        this.#release(slot);
      }
    }
    told.tell();
    return late;
  }

  /** Refuses the parts in these slots. */
  refuse(slots: Iterable<number>, error: StarlingError): void {
    const told = new Told(0);
    for (const slot of slots) {
      const listener = this.#listeners[slot] ?? null;
      if (listener === null) continue;
      told.of(listener).add({ kind: "refused", position: this.#positions[slot] ?? 0, error });
      this.#release(slot);
    }
    told.tell();
  }

  /** Refuses all that wait, also what is durable: nothing more will be heard of it. */
  refuseAll(error: StarlingError): void {
    this.refuse(this.#listeners.keys(), error);
  }

  #read(event: WireEvent): PartEvent {
    const { slot, kind } = event;
    const position = this.#positions[slot] ?? 0;
    switch (kind.case) {
      case "durable": {
        const { epoch, seq, repeat, rejections: stored } = kind.value;
        const { id: shard, epoch: at } = this.#ownerOf(slot, epoch);
        const rejections = readRejections(stored);
        return { kind: "durable", position, shard, epoch: at, seq: toSeq(seq), repeat, rejections };
      }
      case "processed":
        this.#release(slot);
        return { kind: "processed", position, obligations: kind.value };
      case "refused":
        this.#release(slot);
        return { kind: "refused", position, error: readProblem(kind.value) };
      default: {
        // Only a newer node says what is not known here: the part is offered again, and asked for as a repeat.
        this.#release(slot);
        const error = new StarlingError(
          "UNAVAILABLE",
          "the owner said something of the part that this node cannot read",
        );
        return { kind: "refused", position, error };
      }
    }
  }

  #ownerOf(slot: number, epoch: number): PartOwner {
    const id = this.#shards[slot];
    if (id === undefined) throw new Error(`no part in slot ${slot}`);
    const known = this.#owners.get(id);
    if (known?.epoch === epoch) return known;
    const owner = { id, epoch: toEpoch(epoch) };
    this.#owners.set(id, owner);
    return owner;
  }

  #release(slot: number): void {
    this.#listeners[slot] = null;
    this.#free.push(slot);
  }
}

/** News by who hears them. A listener may offer again while it is told, so all is gathered first. */
class Told {
  readonly #size: number;
  readonly #all = new Map<PartListener, PartNews>();
  #last: PartListener | null = null;
  #news: PartNews | null = null;

  constructor(size: number) {
    this.#size = Math.min(size, sizeMax);
  }

  of(listener: PartListener): PartNews {
    if (this.#last === listener && this.#news !== null) return this.#news;
    const news = this.#all.get(listener) ?? new PartNews(this.#size);
    this.#all.set(listener, news);
    this.#last = listener;
    this.#news = news;
    return news;
  }

  tell(): void {
    for (const [listener, news] of this.#all) listener(news);
  }
}

/** Room that is made at once for one listener's news: there may be many listeners. */
const sizeMax = 256;
