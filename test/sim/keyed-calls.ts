import { create } from "@bufbuild/protobuf";
import { toWireValue } from "../../proto/client-batch.ts";
import type { Clock } from "../../proto/clock.ts";
import { AckLevel, type SendReply, SendRequestSchema } from "../../proto/gen/starling_pb.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import type { Random } from "../support/random.ts";
import type { Checker } from "./checker.ts";
import type { SimNode } from "./sim-node.ts";

export interface KeyedCallOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly checker: Checker;
  readonly node: () => SimNode | null;
  readonly isOver: () => boolean;
  readonly onDatapoint: () => void;
}

/** Sends without a session, under idempotency keys, one after another. */
export class KeyedCalls {
  readonly #options: KeyedCallOptions;
  calls = 0;
  /** Calls that have no answer yet. */
  open = 0;

  constructor(options: KeyedCallOptions) {
    this.#options = options;
  }

  /** Calls with an idempotency key, tried at one node after another until one answers. */
  begin(): void {
    const { clock, random, checker, node: anyNode, isOver, onDatapoint } = this.#options;
    const next = (): void => {
      if (isOver()) return;
      const number = ++this.calls;
      const eid = `own-call-${random.between(1, 4)}`;
      const v = `call:${number}:0:`;
      const datapoint = {
        $typeName: "starling.v1.Datapoint" as const,
        type: "item",
        eid,
        attr: "x",
        v: toWireValue(v),
        t1: 1_767_225_600_000 + number,
      };
      const request = create(SendRequestSchema, {
        datapoints: [datapoint],
        idempotencyKey: `key-${number}`,
        level: AckLevel.DURABLE,
      });
      onDatapoint();
      this.open++;
      const attempt = (): void => {
        const state: { status: "open" | "done" } = { status: "open" };
        const again = (): void => {
          if (state.status === "done") return;
          state.status = "done";
          clock.after(50, attempt);
        };
        clock.after(2000, again);
        const node = anyNode();
        if (node === null || node.process.status === "frozen") return;
        (node.send(request) as Promise<SendReply>).then(
          () => {
            if (state.status === "done") return;
            state.status = "done";
            this.open--;
            checker.durable.add(v);
            checker.settled.add(v);
            if (!checker.ledger.sent.has(v)) checker.add("lost", `${v} was accepted and is not in the log`);
            clock.after(100 + 200 * random.next(), next);
          },
          (error: unknown) => {
            // Of an attempt that was given up nobody hears any more.
            if (state.status === "done") return;
            if (error instanceof StarlingError && error.retryable) return again();
            checker.add("client", `call ${number}: ${String(error)}`);
          },
        );
      };
      attempt();
    };
    next();
  }
}
