import type { FlushOutcome, SendOutcome } from "./client.ts";
import type { ClientRejection } from "./client-session.ts";

const keptRejections = 1_000;

/** What became of what was written and is not waited for by its writer: counted until somebody asks. */
export class ClientTally {
  readonly #written = new Set<Promise<void>>();
  #total: { accepted: number; rejected: number; rejections: (ClientRejection & { number: number })[] };

  constructor() {
    this.#total = { accepted: 0, rejected: 0, rejections: [] };
  }

  /** An outcome to come. An error is left to whoever keeps the session's. */
  add(outcome: Promise<Pick<SendOutcome, "number" | "accepted" | "rejections">>): void {
    const counted = outcome.then(
      (one) => this.#count(one),
      () => {},
    );
    this.#written.add(counted);
    void counted.then(() => this.#written.delete(counted));
  }

  /** Waits for all that was added. */
  async settled(): Promise<void> {
    await Promise.all(this.#written);
  }

  /** What was counted since it was asked last. */
  take(): FlushOutcome {
    const total = this.#total;
    this.#total = { accepted: 0, rejected: 0, rejections: [] };
    return total;
  }

  #count({ number, accepted, rejections }: Pick<SendOutcome, "number" | "accepted" | "rejections">): void {
    this.#total.accepted += accepted;
    this.#total.rejected += rejections.length;
    for (const rejection of rejections) {
      if (this.#total.rejections.length < keptRejections) this.#total.rejections.push({ ...rejection, number });
    }
  }
}
