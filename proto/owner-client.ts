import { type AdminClient, createAdminClient } from "./admin-client.ts";
import type { AckRange, Client, FlushOutcome, SendOutcome } from "./client.ts";
import { type ClientDatapoint, type EncodedBatch, encodeBatches } from "./client-batch.ts";
import type { BatchOutcome } from "./client-session.ts";
import { ClientTally } from "./client-tally.ts";
import type { Clock } from "./clock.ts";
import { createEntitiesClient, type EntitiesClient } from "./entities-client.ts";
import { OwnerPart } from "./owner-part.ts";
import type { OwnerSession } from "./owner-session.ts";
import type { OwnerSessions } from "./owner-sessions.ts";
import { createSnapshotsClient, type SnapshotsClient } from "./snapshots-client.ts";
import { StarlingError, toStarlingError } from "./starling-error.ts";
import { createBatchWriter } from "./write-batch.ts";

/**
 * A client that splits what it is given by the owners of its shards, and sends each part in a session of its own straight to
 * its owner.
 *
 *  C1  A shard's datapoints are in one session as long as any of them is not durable: those that go to another one, because
 *      the shard moved, wait until all that were sent before are durable. So an entity's datapoints (by type and id, as
 *      written) keep their order.
 *  C2  A session outlives its node: what is unacknowledged goes again through another one. So a part is taken once.
 *  C3  Owners are a guess: nodes forward what is not theirs. Only the cost depends on it.
 *  C4  What waits is bounded by `maxInFlight` of each session, and by what callers give without waiting.
 *  C5  A session that ends for good ends the client: all who wait get the error.
 */
export interface OwnerClientOptions {
  readonly sessions: OwnerSessions;
  readonly level: "durable" | "processed";
  readonly clock: Clock;
  readonly callMs: number;
  readonly onAck: (ack: AckRange) => void;
}

/** The client, over sessions of which the first is connected. */
export function createOwnerClient(options: OwnerClientOptions): Client {
  return new OwnerClient(options);
}

const closeGraceMs = 5_000;

interface Given {
  /** Every part has its place in its session. */
  readonly taken: Promise<unknown>;
  readonly outcome: Promise<SendOutcome>;
}

class OwnerClient implements Client {
  readonly entities: EntitiesClient;
  readonly admin: AdminClient;
  readonly snapshots: SnapshotsClient;
  readonly #options: OwnerClientOptions;
  readonly #sessions: OwnerSessions;
  readonly #writer = createBatchWriter();
  readonly #written = new ClientTally();
  readonly #unsettled = new Set<Promise<unknown>>();
  /** Parts that are not durable yet. */
  readonly #parts = new Set<OwnerPart>();
  /** Of these the last one of each shard. */
  readonly #lastParts = new Map<number, OwnerPart>();
  #number = 0;
  #failure: StarlingError | null = null;
  #closing: Promise<void> | null = null;

  constructor(options: OwnerClientOptions) {
    this.#options = options;
    this.#sessions = options.sessions;
    const connected = () => this.#sessions.home.connected();
    this.entities = createEntitiesClient(connected, options.callMs);
    this.admin = createAdminClient(connected, options.callMs);
    this.snapshots = createSnapshotsClient(connected, options.callMs);
  }

  get session(): string {
    return this.#sessions.home.id;
  }

  async send(
    datapoints: readonly ClientDatapoint[],
    options: { readonly atomic?: boolean } = {},
  ): Promise<SendOutcome> {
    if (options.atomic) {
      throw new StarlingError(
        "INVALID_ARGUMENT",
        "an atomic batch is not split: send it by a client without ownerAware",
      );
    }
    return await this.#give(datapoints).outcome;
  }

  async write(datapoints: readonly ClientDatapoint[]): Promise<void> {
    const { taken, outcome } = this.#give(datapoints);
    this.#written.add(outcome);
    await taken;
  }

  async flush(): Promise<FlushOutcome> {
    await this.#written.settled();
    if (this.#failure !== null) throw this.#failure;
    return this.#written.take();
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    while (this.#unsettled.size > 0) await Promise.allSettled(this.#unsettled);
    await this.#sessions.close(closeGraceMs);
  }

  /** Splits and encodes, which may raise, before anything is sent. */
  #give(datapoints: readonly ClientDatapoint[]): Given {
    if (this.#closing !== null) throw new StarlingError("UNAVAILABLE", "the client is closed");
    if (this.#failure !== null) throw this.#failure;
    if (datapoints.length === 0)
      throw new StarlingError("INVALID_ARGUMENT", "an empty batch: a batch has at least one datapoint");
    const parts = this.#split(datapoints);
    const encoded = parts.map((part) => encodeBatches(part.datapoints, false, this.#writer));
    for (const part of parts) this.#expect(part);
    this.#number += 1;
    const number = this.#number;
    this.#sessions.stir();
    const acked = this.#ackAfter(number, parts.length, datapoints.length);
    const given = parts.map((part, index) => this.#offer(part, encoded[index] ?? [], acked));
    const taken = Promise.all(given);
    const outcome = taken.then(async (all) => {
      const outcomes = await Promise.all(all.map((one) => Promise.all(one)));
      return this.#tell(joined(number, parts, outcomes));
    });
    outcome.catch((error: unknown) => this.#fail(error));
    this.#unsettled.add(outcome);
    const forget = (): void => void this.#unsettled.delete(outcome);
    outcome.then(forget, forget);
    return { taken, outcome };
  }

  #expect(part: OwnerPart): void {
    part.session.expect(1);
    this.#parts.add(part);
    for (const shard of part.shards) this.#lastParts.set(shard, part);
  }

  #onDurable(part: OwnerPart): void {
    this.#parts.delete(part);
    for (const shard of part.shards) if (this.#lastParts.get(shard) === part) this.#lastParts.delete(shard);
    part.onDurable();
  }

  /** A part for each session, and another one for what has to wait before it may go there. */
  #split(datapoints: readonly ClientDatapoint[]): OwnerPart[] {
    const { map } = this.#sessions;
    const ready = new Map<OwnerSession, OwnerPart>();
    const late = new Map<OwnerSession, OwnerPart>();
    const partOfShard = new Map<number, OwnerPart>();
    for (let index = 0; index < datapoints.length; index++) {
      const datapoint = datapoints[index] as ClientDatapoint;
      const shard = map.shardOf(datapoint);
      let part = partOfShard.get(shard);
      if (part === undefined) {
        const session = this.#sessions.of(shard);
        const before = this.#lastParts.get(shard);
        const mustWait = before !== undefined && !before.lets(session);
        const parts = mustWait ? late : ready;
        part = parts.get(session) ?? new OwnerPart(session);
        parts.set(session, part);
        part.addShard(shard, mustWait ? before : null);
        partOfShard.set(shard, part);
      }
      part.add(index, datapoint);
    }
    return [...ready.values(), ...late.values()];
  }

  /** Gives a part to its session when it may go; returns the outcomes to come of its batches. */
  async #offer(
    part: OwnerPart,
    batches: readonly EncodedBatch[],
    acked: (refused: number) => void,
  ): Promise<Promise<BatchOutcome>[]> {
    if (part.before.size > 0) await part.waited();
    if (this.#failure !== null) throw this.#failure;
    let open = batches.length;
    let refused = 0;
    const onDurable = (more: number): void => {
      open -= 1;
      refused += more;
      if (open > 0) return;
      this.#onDurable(part);
      acked(refused);
    };
    // All at once, as nothing of another part may come between.
    const added = batches.map((batch) => part.session.add(batch, onDurable));
    part.session.expect(-1);
    part.onOffered();
    const given = await Promise.all(added);
    return given.map(({ outcome }) => outcome);
  }

  /** What is called for each part that is durable; the last one tells the user. */
  #ackAfter(number: number, parts: number, count: number): (refused: number) => void {
    let open = parts;
    let accepted = count;
    return (refused) => {
      open -= 1;
      accepted -= refused;
      if (open === 0) this.#options.onAck({ level: "durable", first: number, last: number, accepted });
    };
  }

  #tell(outcome: SendOutcome): SendOutcome {
    const { number, accepted } = outcome;
    if (this.#options.level === "processed") {
      this.#options.onAck({ level: "processed", first: number, last: number, accepted });
    }
    return outcome;
  }

  #fail(error: unknown): void {
    this.#failure ??= toStarlingError(error);
    // Who waits for a part that never becomes durable goes on, and finds the failure.
    for (const part of this.#parts) this.#onDurable(part);
    this.#sessions.stop();
  }
}

function joined(
  number: number,
  parts: readonly OwnerPart[],
  outcomes: readonly (readonly BatchOutcome[])[],
): SendOutcome {
  const all = outcomes.flat();
  const rejections = parts.flatMap((part, at) => {
    let start = 0;
    return (outcomes[at] ?? []).flatMap((outcome) => {
      const from = start;
      start += outcome.count;
      return outcome.rejections.map((one) => ({ ...one, index: part.indexes[from + one.index] ?? 0 }));
    });
  });
  return {
    number,
    accepted: all.reduce((sum, one) => sum + one.accepted, 0),
    rejections: rejections.sort((a, b) => a.index - b.index),
    tokens: all.flatMap((one) => one.tokens),
    obligations: all.reduce((sum, one) => sum + one.obligations, 0),
  };
}
