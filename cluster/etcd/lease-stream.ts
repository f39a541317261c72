import type { Clock } from "../../proto/clock.ts";
import { Lease, type LeaseKeepAliveResponse } from "../../proto/gen/etcd_pb.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import type { EtcdConnection, EtcdStream } from "./etcd-connection.ts";

export interface LeaseStreamOptions {
  readonly connection: EtcdConnection;
  readonly clock: Clock;
  readonly timeoutMs: number;
}

interface Question {
  readonly id: bigint;
  readonly answered: (ttlS: bigint) => void;
  readonly failed: (error: StarlingError) => void;
}

/**
 * Keep-alives of leases, over one stream: one for each would be the dearest thing that a node with nothing to do asks of etcd.
 *
 * 1. etcd answers a stream's questions in their order, each with the lease it is of; an answer of another lease ends the stream.
 * 2. A question without an answer ends the stream, and the questions behind it fail with it: no late answer is taken for another.
 * 3. A stream that ended is opened anew by the next question.
 */
export class LeaseStream {
  readonly #options: LeaseStreamOptions;
  #stream: EtcdStream<typeof Lease.method.leaseKeepAlive> | null = null;
  #questions: Question[] = [];

  constructor(options: LeaseStreamOptions) {
    this.#options = options;
  }

  /** How long the lease has to live from now, in seconds; 0: there is no such lease. Raises UNAVAILABLE: it is unknown. */
  keepAlive(id: bigint): Promise<bigint> {
    const { clock, timeoutMs } = this.#options;
    return new Promise((resolve, reject) => {
      const stream = this.#open();
      const stopTimer = clock.after(timeoutMs, () => {
        stream.giveUp();
        this.#end(new StarlingError("UNAVAILABLE", `etcd did not answer a keep-alive within ${timeoutMs} ms`));
      });
      const answered = (ttlS: bigint): void => {
        stopTimer();
        resolve(ttlS);
      };
      const failed = (error: StarlingError): void => {
        stopTimer();
        reject(error);
      };
      this.#questions.push({ id, answered, failed });
      stream.write({ ID: id });
    });
  }

  /** Raises UNAVAILABLE when the connection is closed. */
  #open(): EtcdStream<typeof Lease.method.leaseKeepAlive> {
    this.#stream ??= this.#options.connection.open(Lease.method.leaseKeepAlive, {
      onMessage: (response) => this.#onResponse(response),
      onEnd: (error) => this.#end(error),
    });
    return this.#stream;
  }

  #onResponse({ ID, TTL }: LeaseKeepAliveResponse): void {
    const question = this.#questions.shift();
    if (question?.id === ID) return question.answered(TTL);
    if (question !== undefined) this.#questions.unshift(question);
    this.#stream?.cancel();
    this.#end(new StarlingError("UNAVAILABLE", `etcd answered for a lease ${ID} that was not asked for`));
  }

  #end(error: StarlingError): void {
    this.#stream = null;
    for (const { failed } of this.#questions.splice(0)) failed(error);
  }
}
