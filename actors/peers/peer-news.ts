import type { MessageInitShape } from "@bufbuild/protobuf";
import type { NewsSchema, PartEventSchema } from "../../proto/gen/peer_pb.ts";
import { unreachable } from "../../proto/unreachable.ts";
import type { News, PartEvent } from "../lane/part.ts";
import { PartNews } from "../lane/part-news.ts";
import { writeProblem } from "./peer-problem.ts";

/**
 * News for one asking connection, gathered until they are sent. Their bound is the asker's: there are at most two for
 * each part that waits there.
 */
export class OutgoingNews {
  #appended: number[] = [];
  #epochs: number[] = [];
  #seqs: number[] = [];
  #others: MessageInitShape<typeof PartEventSchema>[] = [];
  #passed: number[] = [];
  #moved: number[] = [];

  get isEmpty(): boolean {
    return this.#appended.length + this.#others.length + this.#passed.length === 0;
  }

  /** Adds what a listener heard; positions are the asker's slots. Returns the slots that were refused as MOVED. */
  add(news: News): readonly number[] {
    this.#moved = [];
    this.#add(news);
    return this.#moved;
  }

  #add(news: News): void {
    if (!(news instanceof PartNews)) {
      for (const event of news) this.#addEvent(event);
      return;
    }
    for (let index = 0; index < news.length; index++) {
      const seq = news.seqAt(index);
      const owner = news.ownerAt(index);
      if (seq === 0) this.#passed.push(news.positionAt(index));
      else if (owner === null) this.#addEvent(news.at(index));
      else {
        this.#appended.push(news.positionAt(index));
        this.#epochs.push(owner.epoch);
        this.#seqs.push(seq);
      }
    }
  }

  #addEvent(event: PartEvent): void {
    const slot = event.position;
    switch (event.kind) {
      case "durable": {
        const { epoch, seq, repeat, rejections } = event;
        const value = { epoch, seq, repeat, rejections: [...rejections] };
        this.#others.push({ slot, kind: { case: "durable", value } });
        return;
      }
      case "processed":
        if (event.obligations === 0) this.#passed.push(slot);
        else this.#others.push({ slot, kind: { case: "processed", value: event.obligations } });
        return;
      case "refused":
        if (event.error.code === "MOVED") this.#moved.push(slot);
        this.#others.push({ slot, kind: { case: "refused", value: writeProblem(event.error) } });
        return;
      default:
        unreachable(event);
    }
  }

  /** All of it, to be sent. */
  take(): MessageInitShape<typeof NewsSchema> {
    const taken = {
      appended: this.#appended,
      epochs: this.#epochs,
      seqs: this.#seqs,
      others: this.#others,
      passed: this.#passed,
    };
    this.#appended = [];
    this.#epochs = [];
    this.#seqs = [];
    this.#others = [];
    this.#passed = [];
    return taken;
  }
}
