import type { LogPlace } from "../../actors/engine.ts";
import { wholeState } from "../../actors/store/large-value.ts";
import type { Clock } from "../../proto/clock.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import type { MemoryStore } from "../support/memory-store.ts";
import type { Random } from "../support/random.ts";
import { fieldsOf, type StateField } from "../support/state-fields.ts";
import type { Checker } from "./checker.ts";
import { actorKeys, forward, nameOf, type Tally, type TallyMessage, tallyType } from "./load.ts";
import type { SimNode } from "./sim-node.ts";

export interface MessageLoadOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly checker: Checker;
  readonly node: () => SimNode | null;
  readonly isOver: () => boolean;
}

const senders = ["one", "two"];
const patienceMs = 2500;

/**
 * Sends to behaviours and asks them, each sender one message after another, under an idempotency key at one node after
 * another until one of them answers.
 */
export class MessageLoad {
  readonly #options: MessageLoadOptions;
  messages = 0;
  /** Senders that wait. */
  open = 0;
  readonly #accepted: string[] = [];

  constructor(options: MessageLoadOptions) {
    this.#options = options;
  }

  begin(): void {
    for (const sender of senders) this.#next(sender, 1);
  }

  #next(sender: string, n: number): void {
    const { random, isOver } = this.#options;
    if (isOver()) return;
    this.open++;
    const key = actorKeys[random.between(0, actorKeys.length - 1)] ?? "";
    this.#try(key, { sender, n }, random.next() < 0.5 ? "ask" : "send");
  }

  #try(key: string, message: TallyMessage, kind: "ask" | "send"): void {
    const { clock, node: anyNode, random, checker } = this.#options;
    const { sender, n } = message;
    let status: "open" | "done" = "open";
    const end = (run: () => void) => (): void => {
      if (status === "done") return;
      status = "done";
      cancel();
      run();
    };
    const again = end(() => void clock.after(30, () => this.#try(key, message, kind)));
    const cancel = clock.after(patienceMs, again);
    const done = (result: unknown): void =>
      end(() => {
        this.open--;
        this.messages++;
        checker.settled.add(nameOf(message));
        this.#accepted.push(nameOf(message));
        if (kind === "ask" && result !== `"${nameOf(message)} at ${key}"`)
          checker.add("reply", `${nameOf(message)} was answered ${String(result)}`);
        clock.after(60 + 150 * random.next(), () => this.#next(sender, n + 1));
      })();
    const failed = (error: unknown): void => {
      if (error instanceof StarlingError && (error.retryable || error.code === "DEADLINE")) return again();
      end(() => checker.add("client", `message ${nameOf(message)}: ${String(error)}`))();
    };
    const node = anyNode();
    if (node === null) return;
    const to = { behaviour: "tally", key };
    const call = {
      deadlineMs: 2000,
      signal: new AbortController().signal,
      idempotencyKey: `message-${nameOf(message)}`,
    };
    const start = (): Promise<string | LogPlace> => node.messenger[kind](to, message, call);
    node.process.enter(() => void start().then(done, failed));
  }

  /** Each message that was accepted, and each that came of one, stands once in the log, and once in its actor's state. */
  check(database: MemoryStore): void {
    const { checker } = this.#options;
    const { messages } = checker.ledger;
    const places = new Map<string, number>();
    for (const { message } of messages) places.set(nameOf(message), (places.get(nameOf(message)) ?? 0) + 1);
    for (const [name, count] of places)
      if (count > 1) checker.add("message", `${name} stands ${count} times in the log`);
    for (const name of this.#accepted)
      if (!places.has(name)) checker.add("message", `${name} was accepted and is not in the log`);
    for (const { key, message } of messages)
      for (const sent of forward(key, message))
        if (!places.has(nameOf(sent.message))) checker.add("message", `${nameOf(sent.message)} was never sent on`);
    for (const key of actorKeys) this.#checkActor(database, key);
  }

  #checkActor(database: MemoryStore, key: string): void {
    const { checker } = this.#options;
    const logged = checker.ledger.messages.filter((one) => one.key === key).sort((a, b) => a.seq - b.seq);
    const names = logged.map(({ message }) => nameOf(message));
    const last = new Map<string, number>();
    for (const { message } of logged) {
      const { sender, n } = message;
      if ((last.get(sender) ?? 0) >= n) checker.add("message", `${nameOf(message)} came late to ${key}`);
      last.set(sender, n);
    }
    const shard = logged[0]?.shard;
    if (shard === undefined) return;
    const stored = database.shards.get(shard)?.entities.get(`${tallyType}\t${key}`);
    // Long lists have a row of their own.
    const { state } = fieldsOf<StateField<Tally>>(wholeState(stored?.state ?? "{}", stored?.large));
    const seen = state?.v.seen ?? [];
    if (seen.join() !== names.join())
      checker.add("message", `the state of ${key} has ${seen.join()}, its log ${names.join()}`);
  }
}
