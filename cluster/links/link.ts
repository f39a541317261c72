import type { Clock } from "../../proto/clock.ts";
import type { NodeId } from "../../proto/ids.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import type { Hello, LinkFrame, RelayEndFrame, RelayFrame, WireKind } from "./link-frame.ts";
import type { LinkLimits } from "./link-options.ts";
import { createPulse, type Pulse } from "./link-pulse.ts";
import type { Wire, WireListener } from "./link-wire.ts";

/** What a link tells the node. */
export interface LinkEvents {
  onMessage(link: Link, body: Uint8Array): void;
  onReady(link: Link, order: number): void;
  onRelayed(link: Link, kind: WireKind, frame: RelayFrame | RelayEndFrame): void;
  /** What was held back may be written again. */
  onDrain(link: Link): void;
  /** The peer leaves: what is heard next is the link's end. */
  onFarewell(link: Link): void;
  onBroken(link: Link, problem: StarlingError): void;
  count(name: string, by: number): void;
}

export interface LinkParts {
  readonly path: "direct" | "relayed";
  /** The peer's. */
  readonly hello: Hello;
  readonly control: Wire;
  readonly data: Wire;
  readonly clock: Clock;
  readonly limits: LinkLimits;
  readonly events: LinkEvents;
}

/** A message's size on the way: what surrounds it counts, too, or empty ones would be unbounded. */
const overheadBytes = 16;

/**
 * Two wires to a peer that were greeted. Messages wait here for the end of the turn and for room on the wire; the peer's
 * credits bound them. When either wire breaks both end, and nothing is delivered after that.
 */
export class Link {
  readonly peer: NodeId;
  /** As the peer says it, and as its certificate does where there is one. */
  readonly peerName: string;
  readonly path: "direct" | "relayed";
  readonly modelHash: string;
  readonly openedMs: number;
  readonly onControl: WireListener;
  readonly onData: WireListener;
  /** Whom the peer reaches directly. */
  reaches: ReadonlySet<NodeId> = new Set();
  /** Of its `ready`. */
  order = 0;
  readonly #parts: LinkParts;
  readonly #creditBytes: number;
  readonly #controlPulse: Pulse;
  readonly #dataPulse: Pulse;
  #status: "greeted" | "up" | "down" = "greeted";
  #queue: (Uint8Array | LinkFrame)[] = [];
  #taken = 0;
  #relayBytes = 0;
  /** Whether somebody waits for `onDrain`. */
  #isHolding = false;
  #onTheWayBytes = 0;
  #returnedBytes = 0;
  #flushing: "idle" | "due" | "blocked" = "idle";
  /** Frames that were given to a control wire which takes none. */
  #controlBehind = 0;

  constructor(parts: LinkParts) {
    const { hello, path, clock, limits } = parts;
    this.#parts = parts;
    this.peer = hello.node;
    this.peerName = hello.name;
    this.path = path;
    this.modelHash = hello.modelHash;
    this.openedMs = clock.now();
    this.#creditBytes = hello.creditBytes;
    this.#controlPulse = createPulse({ everyMs: limits.heartbeatMs, silentMs: limits.silentMs }, clock.now());
    this.#dataPulse = createPulse({ everyMs: limits.dataHeartbeatMs, silentMs: limits.dataSilentMs }, clock.now());
    const onEnd = (problem: StarlingError) => this.#break(problem);
    this.onControl = { onFrame: (frame) => this.#takeControl(frame), onDrain: () => this.#drainControl(), onEnd };
    this.onData = { onFrame: (frame) => this.#takeData(frame), onDrain: () => this.#drain(), onEnd };
  }

  /** Of heartbeats; null: none came back yet. */
  get roundTripMs(): number | null {
    return this.#controlPulse.roundTripMs;
  }

  /** Lets messages through; who dialled tells the peer so. */
  open(order: number, tell: boolean): void {
    this.order = order;
    if (this.#status !== "greeted") return;
    this.#status = "up";
    if (tell && !this.#parts.data.write({ kind: "ready", order })) this.#flushing = "blocked";
  }

  /** False: it is down, or the credits are used up. One message is always taken when none is on the way. */
  send(body: Uint8Array): boolean {
    const bytes = body.length + overheadBytes;
    if (this.#status !== "up") return false;
    if (this.#onTheWayBytes > 0 && this.#onTheWayBytes + bytes > this.#creditBytes) return false;
    this.#onTheWayBytes += bytes;
    this.#enqueue(body);
    return true;
  }

  /** Carries a frame of a relayed wire. Refused: it is down, or more than the bound waits already. */
  carry(kind: WireKind, frame: RelayFrame | RelayEndFrame): "sent" | "blocked" | "refused" {
    const { limits, events } = this.#parts;
    if (this.#status !== "up") return "refused";
    if (kind === "control") {
      this.#writeControl(frame);
      return "sent";
    }
    const bytes = sizeOf(frame);
    if (this.#relayBytes > 0 && this.#relayBytes + bytes > limits.relayMaxBytes) {
      events.count("link_relay_full", 1);
      return "refused";
    }
    this.#relayBytes += bytes;
    this.#enqueue(frame);
    this.#isHolding ||= this.#flushing === "blocked" || this.#relayBytes > limits.frameBytes;
    return this.#isHolding ? "blocked" : "sent";
  }

  /** Sends heartbeats and looks for the peer's; `lagMs`: for so long this node stood still. */
  tick(lagMs: number, reaches: readonly NodeId[]): void {
    const nowMs = this.#parts.clock.now();
    this.#controlPulse.forgive(lagMs, nowMs);
    this.#dataPulse.forgive(lagMs, nowMs);
    const control = this.#controlPulse.problem(nowMs);
    const problem = control ?? this.#dataPulse.problem(nowMs);
    if (problem !== null) {
      const wire = control === null ? "data" : "control";
      this.#break(new StarlingError("DEADLINE", `the ${wire} connection is broken: ${problem}`));
      return;
    }
    if (this.#controlPulse.due(nowMs)) this.#writeControl({ kind: "beat", ...this.#controlPulse.beat(nowMs), reaches });
    if (this.#status !== "up") return;
    if (!this.#dataPulse.due(nowMs)) return;
    this.#enqueue({ kind: "beat", ...this.#dataPulse.beat(nowMs), reaches: [] });
    // Few bytes are worth no frame of their own: mostly messages have taken them along by now.
    if (this.#returnedBytes > 0) this.#flushSoon();
  }

  /** As {@link end}, and the peer hears that this node leaves. */
  leave(): Promise<void> {
    if (this.#status === "up") this.#enqueue({ kind: "farewell" });
    return this.end();
  }

  /** Ends both wires after what was sent; nothing is told or delivered any more. */
  async end(): Promise<void> {
    this.#flush();
    this.#status = "down";
    // The end of either wire is the end of the link: the one with messages on it goes first.
    await this.#parts.data.end();
    this.#parts.control.cut();
  }

  /** Ends both wires at once; nothing is told or delivered any more. */
  cut(): void {
    if (this.#status === "down") return;
    this.#status = "down";
    this.#queue = [];
    this.#parts.control.cut();
    this.#parts.data.cut();
  }

  #break(problem: StarlingError): void {
    if (this.#status === "down") return;
    this.cut();
    this.#parts.events.onBroken(this, problem);
  }

  #takeControl(frame: LinkFrame): void {
    if (this.#status === "down") return;
    const nowMs = this.#parts.clock.now();
    this.#controlPulse.alive(nowMs);
    if (frame.kind === "beat") {
      this.#controlPulse.heard(frame, nowMs);
      this.reaches = new Set(frame.reaches);
    } else if (frame.kind === "relay" || frame.kind === "relay-end")
      this.#parts.events.onRelayed(this, "control", frame);
    else this.#break(new StarlingError("INVALID_ARGUMENT", `a frame ${frame.kind} on a control connection`));
  }

  #takeData(frame: LinkFrame): void {
    if (this.#status === "down") return;
    const { clock, events } = this.#parts;
    this.#dataPulse.alive(clock.now());
    if (frame.kind === "ready") events.onReady(this, frame.order);
    else if (this.#status !== "up")
      this.#break(new StarlingError("INVALID_ARGUMENT", "messages before the link is up"));
    else if (frame.kind === "batch") this.#takeBatch(frame.bodies, frame.returnedBytes);
    else if (frame.kind === "beat") this.#dataPulse.heard(frame, clock.now());
    else if (frame.kind === "farewell") events.onFarewell(this);
    else if (frame.kind === "relay" || frame.kind === "relay-end") events.onRelayed(this, "data", frame);
    else this.#break(new StarlingError("INVALID_ARGUMENT", `a frame ${frame.kind} on a data connection`));
  }

  #takeBatch(bodies: readonly Uint8Array[], returnedBytes: number): void {
    const { events, limits } = this.#parts;
    this.#onTheWayBytes = Math.max(0, this.#onTheWayBytes - returnedBytes);
    if (returnedBytes > 0) this.#dataPulse.answered(this.#parts.clock.now());
    for (const body of bodies) {
      // What hears a message may close the link.
      if (this.#status === "down") return;
      events.onMessage(this, body);
      this.#returnedBytes += body.length + overheadBytes;
    }
    if (this.#returnedBytes >= limits.creditBytes / 8) this.#flushSoon();
  }

  #enqueue(item: Uint8Array | LinkFrame): void {
    this.#queue.push(item);
    this.#flushSoon();
  }

  #flushSoon(): void {
    if (this.#flushing !== "idle") return;
    this.#flushing = "due";
    this.#parts.clock.soon(() => {
      if (this.#flushing !== "due") return;
      this.#flushing = "idle";
      this.#flush();
    });
  }

  #flush(): void {
    if (this.#status !== "up") return;
    const { data, events } = this.#parts;
    while (this.#flushing !== "blocked" && (this.#taken < this.#queue.length || this.#returnedBytes > 0)) {
      const frame = this.#nextFrame();
      if (frame.kind !== "beat") this.#dataPulse.sent(this.#parts.clock.now());
      if (!data.write(frame)) this.#flushing = "blocked";
      if (frame.kind === "batch") events.count("link_messages_sent", frame.bodies.length);
    }
    if (this.#taken < this.#queue.length) return;
    this.#queue = [];
    this.#taken = 0;
    if (!this.#isHolding) return;
    this.#isHolding = false;
    events.onDrain(this);
  }

  /** A frame for others as it is, or as many messages as fit. */
  #nextFrame(): LinkFrame {
    const bodies: Uint8Array[] = [];
    let bytes = 0;
    for (; this.#taken < this.#queue.length; this.#taken++) {
      const item = this.#queue[this.#taken];
      if (!(item instanceof Uint8Array)) {
        if (item === undefined || bodies.length > 0) break;
        this.#taken++;
        if (item.kind === "relay" || item.kind === "relay-end") this.#relayBytes -= sizeOf(item);
        return item;
      }
      if (bodies.length > 0 && bytes + item.length > this.#parts.limits.frameBytes) break;
      bodies.push(item);
      bytes += item.length + overheadBytes;
    }
    const returnedBytes = this.#returnedBytes;
    this.#returnedBytes = 0;
    return { kind: "batch", bodies, returnedBytes };
  }

  #drain(): void {
    if (this.#flushing === "blocked") this.#flushing = "idle";
    this.#flush();
  }

  #writeControl(frame: LinkFrame): void {
    const { control, limits, events } = this.#parts;
    if (this.#controlBehind >= limits.controlMax) {
      events.count("link_control_dropped", 1);
      return;
    }
    this.#controlBehind = control.write(frame) ? 0 : this.#controlBehind + 1;
  }

  #drainControl(): void {
    this.#controlBehind = 0;
  }
}

function sizeOf(frame: RelayFrame | RelayEndFrame): number {
  if (frame.kind === "relay-end" || frame.frame.kind !== "batch") return overheadBytes;
  return frame.frame.bodies.reduce((sum, { length }) => sum + length + overheadBytes, overheadBytes);
}
