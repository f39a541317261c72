import type { Clock } from "../../proto/clock.ts";
import { StarlingError, toStarlingError } from "../../proto/starling-error.ts";
import type { Coordinator, LeaseId } from "../coordinator.ts";
import type { Contact } from "./membership-contact.ts";

export interface OwnLeaseOptions {
  readonly coordinator: Coordinator;
  readonly clock: Clock;
  readonly contact: Contact;
  readonly leaseTtlMs: number;
  /** The lease turned out to be gone. */
  readonly onLost: () => void;
  /** A call failed in a way that is no answer. */
  readonly onProblem: (problem: StarlingError) => void;
}

/**
 * The lease that a node's record stands under, kept alive every third of its time to live. That time is counted from when the
 * last answered keep-alive was *sent*, by the monotonic clock: the coordinator cannot have ended it before.
 */
export class OwnLease {
  readonly #options: OwnLeaseOptions;
  #lease: { readonly id: LeaseId; deadlineMs: number } | null = null;
  #cancel: () => void = () => {};
  #status: "open" | "closed" = "open";

  constructor(options: OwnLeaseOptions) {
    this.#options = options;
  }

  /** Null: there is none. It may have lapsed all the same. */
  get id(): LeaseId | null {
    return this.#lease?.id ?? null;
  }

  /** The lease, if it cannot have lapsed, else a new one. Raises UNAVAILABLE. */
  async acquire(): Promise<LeaseId> {
    const { coordinator, clock, leaseTtlMs } = this.#options;
    const sentAtMs = clock.now();
    if (this.#lease !== null && sentAtMs < this.#lease.deadlineMs) return this.#lease.id;
    await this.release();
    const id = await coordinator.grant(leaseTtlMs);
    if (this.#status === "closed") {
      await coordinator.revoke(id);
      throw new StarlingError("UNAVAILABLE", "membership is closed");
    }
    this.#lease = { id, deadlineMs: sentAtMs + leaseTtlMs };
    this.#beatLater(id, sentAtMs);
    return id;
  }

  /** Ends the lease, and with it all that stands under it. One that cannot be ended lapses. */
  async release(): Promise<void> {
    const id = this.forget();
    if (id === null) return;
    try {
      await this.#options.coordinator.revoke(id);
    } catch (error) {
      this.#options.onProblem(toStarlingError(error));
    }
  }

  /** Keeps it alive no longer, as it is gone. */
  forget(): LeaseId | null {
    const { id } = this;
    this.#cancel();
    this.#lease = null;
    return id;
  }

  /** Ends the lease; there will be no other one. */
  close(): Promise<void> {
    this.#status = "closed";
    return this.release();
  }

  #beatLater(id: LeaseId, sentAtMs: number): void {
    const { clock, leaseTtlMs } = this.#options;
    const waitMs = Math.max(beatMinMs, sentAtMs + leaseTtlMs / 3 - clock.now());
    this.#cancel = clock.after(waitMs, () => void this.#beat(id));
  }

  async #beat(id: LeaseId): Promise<void> {
    const { coordinator, clock, contact, leaseTtlMs, onLost, onProblem } = this.#options;
    const sentAtMs = clock.now();
    try {
      await coordinator.keepAlive(id);
      contact.answered();
      if (this.#lease?.id === id) this.#lease.deadlineMs = sentAtMs + leaseTtlMs;
    } catch (error) {
      const problem = toStarlingError(error);
      if (this.#lease?.id !== id) return;
      if (problem.code === "NOT_FOUND") {
        this.forget();
        return onLost();
      }
      onProblem(problem);
    }
    if (this.#lease?.id === id) this.#beatLater(id, sentAtMs);
  }
}

/** Between two keep-alives, when the first one took long. */
const beatMinMs = 100;
