import type { StarlingError } from "../../proto/starling-error.ts";
import type { Hello, LinkFrame, WireKind } from "./link-frame.ts";
import type { Peer } from "./links.ts";

/**
 * One stream to a peer: frames in order, each once, until it ends. Over gRPC in `grpc-link-wire.ts`, through a third node in
 * `link-relay.ts`, in memory in the tests: the protocol above it is the same.
 */
export interface Wire {
  readonly kind: WireKind;
  /** Why who greets here is not whom the connection shows; null: nothing speaks against it. Without it nothing is shown. */
  readonly judge?: (hello: Hello) => StarlingError | null;
  /** False: hold back until `onDrain`. What was given is sent all the same. After the end it does nothing. */
  write(frame: LinkFrame): boolean;
  /** Sends what was written, then ends. Settles when it has ended, soon in any case. The listener hears no more. */
  end(): Promise<void>;
  /** Ends at once. The listener hears no more. */
  cut(): void;
}

/** Never called from within a call of the wire. */
export interface WireListener {
  onFrame(frame: LinkFrame): void;
  onDrain(): void;
  /** Once, unless this side ended it. */
  onEnd(problem: StarlingError): void;
}

/** Opens a wire; what goes wrong is told by `onEnd`. Frames may be written at once. */
export type Dial = (peer: Peer, kind: WireKind, listener: WireListener) => Wire;
