import type { OwnerTable } from "../../cluster/owner-table.ts";
import type { Model } from "../../modules/model.ts";
import type { Clock } from "../../proto/clock.ts";
import { withDeadline } from "../../proto/deadline.ts";
import type { Follow, Get, Offer, PeerMessage, Question } from "../../proto/gen/peer_pb.ts";
import { type NodeId, type ShardId, toSeq, toShardId } from "../../proto/ids.ts";
import { StarlingError, toStarlingError } from "../../proto/starling-error.ts";
import type { Counters } from "../counters.ts";
import { isOutboxChannel } from "../lane/admission.ts";
import { type News, type Part, wholePart } from "../lane/part.ts";
import type { LocalEngine } from "../local-engine.ts";
import { shardOfType } from "../shard-of-type.ts";
import type { RawRow } from "../store/store.ts";
import type { Traces } from "../traces.ts";
import { type InspectSubject, shardOfLetter } from "./peer-ask.ts";
import type { AnswerInit, ConnectionLimits, PeerConnection } from "./peer-connection.ts";
import { watchOwners } from "./peer-follow.ts";
import { type MisfitPart, readOffer } from "./peer-parts.ts";
import { writeProblem } from "./peer-problem.ts";
import { readPlace, writeRecord, writeResult, writeRow } from "./peer-record.ts";

/** What a node needs to answer another one. */
export interface ServiceWorld {
  readonly local: LocalEngine;
  readonly owners: OwnerTable;
  readonly self: () => NodeId;
  readonly model: Model;
  readonly clock: Clock;
  readonly counters: Counters;
  readonly log: { warn(fields: object, message: string): void };
  /** Set where tasks are traced. */
  readonly traces?: Traces | undefined;
  readonly entityShards: number;
  readonly systemShards?: number;
  /** What this node says of itself, or of a shard of its (`cluster-control.ts`); default nothing. */
  readonly inspect?: (subject: InspectSubject) => unknown;
  readonly limits: ConnectionLimits & { readonly readDeadlineMs: number; readonly letterDeadlineMs: number };
}

/**
 * What another node asks of this one over one connection. Nothing is passed on: what is not here is MOVED, together
 * with what this node knows of the owner.
 */
export class PeerService {
  readonly #world: ServiceWorld;
  readonly #connection: PeerConnection;
  /** The asking connection. */
  readonly #to: number;
  /** By slot. */
  readonly #shards: ShardId[] = [];
  readonly #asked = new Map<number, AbortController>();
  readonly #listener = (news: News): void => this.#hear(news);

  constructor(connection: PeerConnection, world: ServiceWorld) {
    this.#connection = connection;
    this.#world = world;
    this.#to = connection.theirs;
  }

  /** Whether it still is the one for what the other node asks. */
  get isCurrent(): boolean {
    return this.#connection.isUp && this.#connection.theirs === this.#to;
  }

  /** Takes the offers and questions of a message. */
  serve({ offers, questions }: PeerMessage): void {
    if (offers.length > 0) this.#offer(offers);
    for (const question of questions) this.#take(question);
  }

  /** Nobody waits any more. Idempotent. */
  end(): void {
    for (const abort of this.#asked.values()) abort.abort();
    this.#asked.clear();
  }

  #offer(offers: readonly Offer[]): void {
    const { local, model, counters, traces } = this.#world;
    const here: Part[] = [];
    for (const offer of offers) {
      for (const [at, slot] of offer.slots.entries()) this.#shards[slot] = toShardId(offer.shards[at] ?? 0);
      const { parts, misfits } = readOffer(offer, model, traces);
      for (const part of parts) here.push(part);
      for (const misfit of misfits) this.#takeMisfit(misfit, here);
    }
    counters.add("peer/parts_received", here.length);
    if (here.length > 0) local.offer(here, this.#listener);
  }

  /**
   * A part of a client's becomes durable as a refusal, as what PostgreSQL refuses does: its number counts, and repeats
   * are told the same (R9, R10). Derived tasks wait at their sender: nothing of them may be lost, and both nodes will
   * have one model.
   */
  #takeMisfit({ part, error }: MisfitPart, here: Part[]): void {
    const { counters, log } = this.#world;
    const { shard, channel, position } = part;
    counters.add("peer/misfits");
    if (isOutboxChannel(channel)) {
      log.warn({ shard, channel, problem: error.message }, "derived tasks of a node with another model did not fit");
      this.#hear([{ kind: "refused", position, error: new StarlingError("UNAVAILABLE", error.message) }]);
      return;
    }
    const { code, message } = error;
    here.push({ ...part, rejections: [...part.rejections, { index: wholePart, code, message }] });
  }

  #hear(news: News): void {
    const outgoing = this.#connection.newsFor(this.#to);
    if (outgoing === null) return;
    // Who is told MOVED learns who has the shard.
    for (const slot of outgoing.add(news)) this.#tellOwner(this.#shards[slot]);
  }

  #tellOwner(shard: ShardId | undefined): void {
    const known = shard === undefined ? undefined : this.#world.owners.get(shard);
    if (known !== undefined) this.#connection.tellOwners([known]);
  }

  #take({ id, kind }: Question): void {
    if (kind.case === "end") {
      this.#asked.get(id)?.abort();
      this.#asked.delete(id);
      return;
    }
    if (this.#asked.size >= this.#world.limits.peerMaxQuestions) {
      return this.#fail(id, new StarlingError("BUSY", "this node has too many questions of yours in hand"));
    }
    const abort = new AbortController();
    this.#asked.set(id, abort);
    const failed = (error: unknown): void => {
      const problem = toStarlingError(error);
      if (problem.code === "MOVED") this.#tellOwner(this.#shardOf(kind));
      this.#fail(id, problem);
    };
    void this.#answer(id, kind, abort.signal)
      .catch(failed)
      .then(() => this.#asked.delete(id));
  }

  async #answer(id: number, kind: Question["kind"], signal: AbortSignal): Promise<void> {
    switch (kind.case) {
      case "get":
        return this.#tell(await this.#get(id, kind.value, signal));
      case "letter": {
        const { local, clock, limits } = this.#world;
        const text = "the dead letter was not replayed";
        const deadline = { clock, deadlineMs: limits.letterDeadlineMs, text, signal };
        const letter = await withDeadline(local.replayDeadLetter(kind.value), deadline);
        return this.#tell({ id, kind: { case: "letter", value: JSON.stringify(letter) } });
      }
      case "reply": {
        const { shard, seq, deadlineMs } = kind.value;
        const result = await this.#world.local.reply(toShardId(shard), toSeq(seq), deadlineMs);
        return this.#tell({ id, kind: { case: "result", value: writeResult(result) } });
      }
      case "inspect": {
        const { shard, type, eid } = kind.value;
        const subject = shard === undefined ? {} : { shard: toShardId(shard), type, eid };
        const value = JSON.stringify(this.#world.inspect?.(subject) ?? null);
        return this.#tell({ id, kind: { case: "inspected", value } });
      }
      case "follow":
        return this.#follow(id, kind.value, signal);
      default:
        throw new StarlingError("VERSION_MISMATCH", "this node does not know what it is asked");
    }
  }

  async #get(id: number, { type, eid, atLeast }: Get, signal: AbortSignal): Promise<AnswerInit> {
    const { local, model, clock, limits } = this.#world;
    const spec = model.entities.get(type);
    if (spec === undefined) throw new StarlingError("UNKNOWN_TYPE", `no entity type ${type} in the model`);
    const work = local.get(type, eid, atLeast === undefined ? null : readPlace(atLeast));
    const text = `${type} ${eid} was not read`;
    const record = await withDeadline(work, { clock, deadlineMs: limits.readDeadlineMs, text, signal });
    if (record === null) return { id, kind: { case: "none", value: true } };
    return { id, kind: { case: "record", value: writeRecord(spec, record) } };
  }

  /** Rows until the asker has enough, or a shard of them is here no more: then rows would be missing. */
  async #follow(id: number, { type, eid, attr, shards }: Follow, signal: AbortSignal): Promise<void> {
    const { local, owners, self } = this.#world;
    const missing = shards.find((shard) => !local.owns(toShardId(shard)));
    if (missing !== undefined) {
      throw new StarlingError("MOVED", `this node does not own shard ${missing}`);
    }
    const moved = new AbortController();
    const node = self();
    const owned = new Map(shards.map((shard) => [toShardId(shard), node]));
    const unwatch = watchOwners(local, owners, owned, () => moved.abort());
    try {
      const until = AbortSignal.any([signal, moved.signal]);
      const rows = local.follow({ type, eid: eid ?? null, attr: attr ?? null }, until);
      await this.#tellRows(id, rows);
      if (moved.signal.aborted) throw new StarlingError("MOVED", "a followed shard has another owner");
    } finally {
      unwatch();
    }
  }

  /** What comes in one turn travels together; while the link takes nothing, the follower's own bound holds. */
  async #tellRows(id: number, rows: AsyncIterable<RawRow>): Promise<void> {
    const { clock } = this.#world;
    let waiting: RawRow[] = [];
    let bytes = 0;
    const send = (): void => {
      if (waiting.length > 0) this.#tell({ id, kind: { case: "rows", value: { rows: waiting.map(writeRow) } } });
      waiting = [];
      bytes = 0;
    };
    for await (const row of rows) {
      waiting.push(row);
      bytes += row.json.length + rowBytes;
      if (waiting.length === 1) clock.soon(send);
      if (bytes < rowsMaxBytes) continue;
      send();
      await new Promise<void>((resolve) => clock.soon(resolve));
      await this.#connection.ready();
    }
    send();
  }

  /** The shard that a question is for; of a follow the first that is not here. */
  #shardOf(kind: Question["kind"]): ShardId | undefined {
    const { local, entityShards, systemShards = 1 } = this.#world;
    if (kind.case === "get") return shardOfType(kind.value.type, kind.value.eid, { entityShards, systemShards });
    if (kind.case === "reply") return toShardId(kind.value.shard);
    if (kind.case === "inspect") return undefined;
    if (kind.case === "letter") return shardOfLetter(kind.value) ?? undefined;
    return kind.case === "follow" ? kind.value.shards.map(toShardId).find((shard) => !local.owns(shard)) : undefined;
  }

  #tell(answer: AnswerInit): void {
    this.#connection.answer(this.#to, answer);
  }

  #fail(id: number, error: StarlingError): void {
    if (error.code === "INTERNAL") this.#world.log.warn({ err: error }, "a question of another node failed");
    this.#tell({ id, kind: { case: "problem", value: writeProblem(error) } });
  }
}

/** Size of one answer with rows, and roughly of a row beside its value. */
const rowsMaxBytes = 256 * 1024;
const rowBytes = 200;
