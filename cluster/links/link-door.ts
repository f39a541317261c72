import type { Clock } from "../../proto/clock.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import type { Greeted } from "./link-dial.ts";
import type { Hello, LinkFrame, WireKind } from "./link-frame.ts";
import type { Wire, WireListener } from "./link-wire.ts";

export interface DoorOptions {
  readonly clock: Clock;
  readonly timeoutMs: number;
  readonly arrivalsMax: number;
  /** Why whoever greets is not let in; null: it is. */
  readonly judge: (hello: Hello) => StarlingError | null;
  /** What is said to who is let in. */
  readonly welcome: (hello: Hello) => Hello;
  /** Both wires of a link are greeted. `settle` is to be called when it is up. Returns who hears the wires from now on. */
  readonly onGreeted: (greeted: Greeted, path: ArrivalPath, settle: () => void) => Record<WireKind, WireListener>;
  /** Told for each wire that is refused. */
  readonly onRefused: (hello: Hello | null, problem: StarlingError) => void;
}

export type ArrivalPath = "direct" | "relayed";

interface Arrival {
  readonly wire: Wire;
  readonly path: ArrivalPath;
  hello: Hello | null;
  ears: WireListener | null;
  cancelTimer: () => void;
}

/** Where other nodes' wires arrive: greets them and makes pairs of them. */
export class LinkDoor {
  readonly #options: DoorOptions;
  readonly #arrivals = new Set<Arrival>();

  constructor(options: DoorOptions) {
    this.#options = options;
  }

  /** Takes a wire that a peer has opened. */
  accept(wire: Wire, path: ArrivalPath): WireListener {
    const { clock, timeoutMs, arrivalsMax } = this.#options;
    const arrival: Arrival = { wire, path, hello: null, ears: null, cancelTimer: () => {} };
    this.#arrivals.add(arrival);
    arrival.cancelTimer = clock.after(timeoutMs, () => {
      this.#arrivals.delete(arrival);
      const problem = new StarlingError("DEADLINE", `the node did not open its link within ${timeoutMs} ms`);
      if (arrival.ears === null) wire.cut();
      else arrival.ears.onEnd(problem);
    });
    if (this.#arrivals.size > arrivalsMax) {
      clock.soon(() =>
        this.#refuse(arrival, new StarlingError("BUSY", `${arrivalsMax} connections are not greeted yet`)),
      );
    }
    return {
      onFrame: (frame) => (arrival.ears === null ? this.#take(arrival, frame) : arrival.ears.onFrame(frame)),
      onDrain: () => arrival.ears?.onDrain(),
      onEnd: (problem) => {
        this.#forget(arrival);
        arrival.ears?.onEnd(problem);
      },
    };
  }

  /** Cuts what is no link yet. */
  close(): void {
    for (const arrival of [...this.#arrivals]) {
      this.#forget(arrival);
      arrival.wire.cut();
    }
  }

  #take(arrival: Arrival, frame: LinkFrame): void {
    // Heartbeats of one wire may be earlier than the greeting on the other.
    if (!this.#arrivals.has(arrival) || (arrival.hello !== null && frame.kind === "beat")) return;
    if (frame.kind !== "hello" || arrival.hello !== null) {
      return this.#refuse(
        arrival,
        new StarlingError("INVALID_ARGUMENT", `a frame ${frame.kind} where a hello belongs`),
      );
    }
    arrival.hello = frame.hello;
    const problem = arrival.wire.judge?.(frame.hello) ?? this.#options.judge(frame.hello);
    if (problem !== null) return this.#refuse(arrival, problem);
    arrival.wire.write({ kind: "welcome", hello: this.#options.welcome(frame.hello) });
    const other = [...this.#arrivals].find((one) => one !== arrival && isPair(one, arrival));
    if (other !== undefined) this.#pair(arrival, other, frame.hello);
  }

  #pair(one: Arrival, other: Arrival, hello: Hello): void {
    const [control, data] = one.wire.kind === "control" ? [one, other] : [other, one];
    const greeted = { hello, control: control.wire, data: data.wire };
    const ears = this.#options.onGreeted(greeted, one.path, () => {
      this.#forget(control);
      this.#forget(data);
    });
    control.ears = ears.control;
    data.ears = ears.data;
  }

  #refuse(arrival: Arrival, problem: StarlingError): void {
    if (!this.#arrivals.has(arrival)) return;
    this.#forget(arrival);
    this.#options.onRefused(arrival.hello, problem);
    arrival.wire.write({ kind: "refusal", code: problem.code, message: problem.message });
    void arrival.wire.end();
  }

  #forget(arrival: Arrival): void {
    arrival.cancelTimer();
    this.#arrivals.delete(arrival);
  }
}

function isPair(one: Arrival, other: Arrival): boolean {
  if (one.ears !== null || one.wire.kind === other.wire.kind || one.path !== other.path) return false;
  return one.hello?.node === other.hello?.node && one.hello?.connection === other.hello?.connection;
}
