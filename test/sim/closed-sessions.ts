import { type ClientDatapoint, encodeBatches, encodeBatchMessage } from "../../proto/client-batch.ts";
import type { Clock } from "../../proto/clock.ts";
import { AckLevel, type NodeMessage } from "../../proto/gen/starling_pb.ts";
import type { Random } from "../support/random.ts";
import type { Checker } from "./checker.ts";
import { SimClient } from "./sim-client.ts";
import type { SimNode } from "./sim-node.ts";

export interface ClosedSessionsOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly checker: Checker;
  readonly node: () => SimNode | null;
  readonly isOver: () => boolean;
}

interface ClosedSession {
  readonly id: string;
  /** Its values begin with it. */
  readonly name: string;
  readonly lastNumber: number;
}

const senders = 2;
const patienceMs = 3000;

/** Sessions that are closed in order, of each sender one after another, and that somebody uses again later (R11). */
export class ClosedSessions {
  readonly #options: ClosedSessionsOptions;
  #begun = 0;
  /** Sessions that are not closed yet, or not used again. */
  open = 0;
  /** Closed sessions that were refused. */
  refused = 0;
  /** Values that were sent in closed sessions. */
  readonly #late: string[] = [];

  constructor(options: ClosedSessionsOptions) {
    this.#options = options;
  }

  begin(): void {
    for (let i = 0; i < senders; i++) this.#next();
  }

  /** Its id is the client's name, or drawn by a node. Most of its time it is idle, so that faults come before the close. */
  #next(): void {
    const { clock, random, checker, node, isOver } = this.#options;
    if (isOver()) return;
    this.open++;
    const name = `k${++this.#begun}`;
    const isNamed = random.next() < 0.5;
    const said = random.next() < 0.5 ? "durable" : "processed";
    const level = said === "durable" ? AckLevel.DURABLE : AckLevel.PROCESSED;
    const lastNumber = random.between(1, 2);
    let number = 0;
    new SimClient({
      ...{ name, level, clock, random: random.next, ...(isNamed ? {} : { session: "" }) },
      paceMs: () => 50 + 400 * random.next(),
      next: () => (number === lastNumber ? null : this.#draw(name, ++number)),
      connect: (listener) => node()?.stream(listener) ?? null,
      onAcked: (batch, outcome) => checker.onAcked(batch, outcome, said),
      onError: (text) => checker.add("client", text),
      onBound: (text) => checker.add("bounds", text),
      onClosed: (id) => {
        clock.after(10 + 1000 * random.next() ** 2, () => this.#useAgain({ id, name, lastNumber }));
        this.#next();
      },
    });
  }

  #draw(name: string, number: number): ClientDatapoint[] {
    const { random } = this.#options;
    return Array.from({ length: random.between(1, 2) }, (_, index) => {
      const [eid, v] = [`own-closed-${random.between(1, 4)}`, `${name}:${number}:${index}:`];
      return { type: "item", eid, attr: "x", v, t1: 1_767_225_600_000 + number * 100 + index };
    });
  }

  /** Greets one node after another, each with a batch right behind, until one says what it makes of it. */
  #useAgain(session: ClosedSession): void {
    const { clock, random, checker, node: anyNode } = this.#options;
    const { id, name, lastNumber } = session;
    let status: "open" | "done" = "open";
    const end = (run: () => void): void => {
      if (status === "done") return;
      status = "done";
      cancel();
      stream?.cancel();
      run();
    };
    const again = (): void => end(() => void clock.after(50 + 100 * random.next(), () => this.#useAgain(session)));
    const cancel = clock.after(patienceMs, again);
    const onMessage = ({ kind }: NodeMessage): void => {
      if (kind.case === "leaving") return;
      if (kind.case !== "problem")
        return checker.add("sessions", `${id}, which was closed, was answered with ${kind.case} at ${node?.name}`);
      const { code, retryable } = kind.value;
      if (retryable) return again();
      if (code !== "SESSION_CLOSED") checker.add("sessions", `${id}, which was closed, was refused with ${code}`);
      end(() => {
        this.open--;
        this.refused++;
      });
    };
    const node = anyNode();
    const stream = node?.stream({ onMessage, onEnd: again });
    if (stream === undefined) return;
    const hello = { versionMin: 1, versionMax: 1, session: id, named: id === name, level: AckLevel.DURABLE };
    stream.say({ case: "hello", value: hello });
    const batch = this.#draw(name, lastNumber + 1);
    this.#late.push(...batch.map(({ v }) => String(v)));
    for (const encoded of encodeBatches(batch, false)) stream.write(encodeBatchMessage(encoded, lastNumber + 1, null));
  }

  /** Nothing that was sent in a closed session stands in the log. */
  check(): void {
    const { checker } = this.#options;
    for (const v of this.#late)
      if (checker.ledger.sent.has(v)) checker.add("sessions", `${v}, of a closed session, stands in the log`);
  }
}
