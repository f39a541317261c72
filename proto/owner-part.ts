import type { ClientDatapoint } from "./client-batch.ts";
import type { OwnerSession } from "./owner-session.ts";

/** Datapoints of one `send` that go to one owner, and what later ones of the same shards have to wait for. */
export class OwnerPart {
  readonly session: OwnerSession;
  readonly shards: number[] = [];
  /** Parts that hold earlier datapoints of these shards and bar the way. */
  readonly before = new Set<OwnerPart>();
  #datapoints: ClientDatapoint[] = [];
  readonly indexes: number[] = [];
  #status: "waiting" | "offered" | "durable" = "waiting";
  readonly #waiting: { readonly session: OwnerSession; readonly go: () => void }[] = [];

  constructor(session: OwnerSession) {
    this.session = session;
  }

  /** Until it is offered. */
  get datapoints(): readonly ClientDatapoint[] {
    return this.#datapoints;
  }

  addShard(shard: number, before: OwnerPart | null): void {
    this.shards.push(shard);
    if (before !== null) this.before.add(before);
  }

  /** `index`: its place in what was given to `send`. */
  add(index: number, datapoint: ClientDatapoint): void {
    this.indexes.push(index);
    this.#datapoints.push(datapoint);
  }

  /** Whether later datapoints of its shards may go into a session now: into its own, behind it; into others when it is durable. */
  lets(session: OwnerSession): boolean {
    return this.#status === "durable" || (this.#status === "offered" && session === this.session);
  }

  /** Resolves when all that bar the way let it go. */
  async waited(): Promise<void> {
    await Promise.all([...this.before].map((part) => part.#letting(this.session)));
    this.before.clear();
  }

  /** It has its place in its session. */
  onOffered(): void {
    // The session has its bytes: nobody needs the datapoints any more.
    this.#datapoints = [];
    if (this.#status === "waiting") this.#become("offered");
  }

  onDurable(): void {
    this.#become("durable");
  }

  #letting(session: OwnerSession): Promise<void> {
    if (this.lets(session)) return Promise.resolve();
    return new Promise((go) => this.#waiting.push({ session, go }));
  }

  #become(status: "offered" | "durable"): void {
    this.#status = status;
    const left = this.#waiting.splice(0);
    for (const one of left) {
      if (this.lets(one.session)) one.go();
      else this.#waiting.push(one);
    }
  }
}
