import type { Clock } from "../../proto/clock.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import type { Hello, LinkFrame, WireKind } from "./link-frame.ts";
import type { Wire, WireListener } from "./link-wire.ts";

export interface DialOptions {
  readonly clock: Clock;
  readonly timeoutMs: number;
  readonly hello: Hello;
  /** Opens one of the two wires. */
  readonly open: (kind: WireKind, listener: WireListener) => Wire;
  /** Why the peer's answer will not do; null: it will. */
  readonly judge: (hello: Hello) => StarlingError | null;
  /** Both wires are greeted. Returns who hears them from now on. */
  readonly onGreeted: (greeted: Greeted) => Record<WireKind, WireListener>;
  /** Once, instead of `onGreeted`; `isRefusal`: the peer itself said so. */
  readonly onFailed: (problem: StarlingError, isRefusal: boolean) => void;
}

export interface Greeted {
  readonly hello: Hello;
  readonly control: Wire;
  readonly data: Wire;
}

/** Opens both wires to a peer and greets it. Returns the cancelling, after which nothing is told. */
export function dialLink(options: DialOptions): () => void {
  const { clock, timeoutMs, hello, open, judge } = options;
  let status: "dialling" | "greeted" | "failed" = "dialling";
  let ears: Record<WireKind, WireListener> | null = null;
  const welcomes = new Map<WireKind, Hello>();
  const wires: Wire[] = [];
  const stop = (): void => {
    if (status !== "dialling") return;
    status = "failed";
    cancelTimer();
    for (const wire of wires) wire.cut();
  };
  const fail = (problem: StarlingError, isRefusal: boolean): void => {
    if (status !== "dialling") return;
    stop();
    options.onFailed(problem, isRefusal);
  };
  const cancelTimer = clock.after(timeoutMs, () =>
    fail(new StarlingError("DEADLINE", `the node did not greet within ${timeoutMs} ms`), false),
  );
  const take = (kind: WireKind, frame: LinkFrame): void => {
    // The heartbeats of a peer that waits for the other wire.
    if (status !== "dialling" || (frame.kind === "beat" && welcomes.has(kind))) return;
    if (frame.kind === "refusal") return fail(new StarlingError(frame.code, frame.message), true);
    if (frame.kind !== "welcome") return fail(new StarlingError("INVALID_ARGUMENT", "no welcome"), false);
    const problem = judge(frame.hello);
    if (problem !== null) return fail(problem, true);
    welcomes.set(kind, frame.hello);
    const [control, data] = wires;
    if (welcomes.size < 2 || control === undefined || data === undefined) return;
    status = "greeted";
    cancelTimer();
    ears = options.onGreeted({ hello: frame.hello, control, data });
  };
  for (const kind of ["control", "data"] as const) {
    const wire = open(kind, {
      onFrame: (frame) => (ears === null ? take(kind, frame) : ears[kind].onFrame(frame)),
      onDrain: () => ears?.[kind].onDrain(),
      onEnd: (problem) => (ears === null ? fail(problem, false) : ears[kind].onEnd(problem)),
    });
    wires.push(wire);
    wire.write({ kind: "hello", hello });
  }
  return stop;
}
