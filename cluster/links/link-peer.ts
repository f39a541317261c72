import type { Clock } from "../../proto/clock.ts";
import type { NodeId } from "../../proto/ids.ts";
import { type ErrorCode, StarlingError } from "../../proto/starling-error.ts";
import type { Link } from "./link.ts";
import type { LinkLimits } from "./link-options.ts";
import type { Peer } from "./links.ts";

/** What a peer needs of the node. */
export interface PeerWorld {
  readonly clock: Clock;
  readonly limits: LinkLimits;
  /** Tries to open a link; null: directly. Returns the cancelling; what comes of it is told to the peer. */
  dial(peer: LinkPeer, via: NodeId | null): () => void;
  /** A node that reaches the peer, for a relay. */
  findVia(peer: NodeId): NodeId | null;
  onUp(peer: LinkPeer): void;
  /** A link that was up is gone. */
  onDown(peer: LinkPeer, problem: StarlingError): void;
  /** There is still no link. */
  onUnreachable(peer: LinkPeer, problem: StarlingError): void;
  onDirect(peer: LinkPeer, isReachable: boolean): void;
}

type PathName = "direct" | "relayed";

/** Attempts to open a link on one path. */
interface Attempts {
  failures: number;
  cancel: (() => void) | null;
  nextMs: number;
}

/**
 * One other node. Who has the smaller id dials: directly again and again, and over a third node while that does not work.
 * There is one link at a time, and the newest stands.
 */
export class LinkPeer {
  readonly id: NodeId;
  readonly isDialler: boolean;
  /** As membership knows it; empty for a guest. */
  nodeName: string;
  address: string;
  /** Until when a node may stay that nobody has named; infinite for the others. */
  guestUntilMs: number;
  link: Link | null = null;
  /** What was logged since its link was up, so that it is logged once. */
  loggedCode: ErrorCode | null = null;
  /** It said farewell; it is missed all the same when it is still named after a while. */
  hasLeft = false;
  readonly #world: PeerWorld;
  readonly #attempts: Readonly<Record<PathName, Attempts>>;
  #status: "open" | "closed" = "open";
  #problem: StarlingError | null = null;
  #downSinceMs: number;
  /** How long it is down before that is told. */
  #patienceMs: number;
  #directSinceMs: number;
  #cancelRetry = () => {};

  constructor(peer: Peer & { readonly isDialler: boolean; readonly guestUntilMs: number }, world: PeerWorld) {
    const nowMs = world.clock.now();
    this.id = peer.id;
    this.nodeName = peer.name;
    this.address = peer.address;
    this.isDialler = peer.isDialler;
    this.guestUntilMs = peer.guestUntilMs;
    this.#world = world;
    this.#attempts = {
      direct: { failures: 0, cancel: null, nextMs: nowMs },
      relayed: { failures: 0, cancel: null, nextMs: nowMs },
    };
    this.#downSinceMs = nowMs;
    this.#patienceMs = world.limits.firstLinkMs;
    this.#directSinceMs = nowMs;
    if (this.isDialler) this.#dial("direct", null);
  }

  get path(): PathName | "down" {
    return this.link?.path ?? "down";
  }

  /** Someone has named it: from now on it counts when it cannot be reached. */
  name({ name, address }: Peer): void {
    this.nodeName = name;
    this.address = address;
    if (this.guestUntilMs === Number.POSITIVE_INFINITY) return;
    this.guestUntilMs = Number.POSITIVE_INFINITY;
    this.#downSinceMs = this.#world.clock.now();
    this.#directSinceMs = this.#downSinceMs;
  }

  /** A link that is ready takes the place of the one before. */
  adopt(link: Link): void {
    const before = this.link;
    this.link = link;
    this.hasLeft = false;
    this.#patienceMs = this.#world.limits.downAfterMs;
    this.#attempts[link.path].cancel = null;
    this.#problem = null;
    this.#stopAttempt("relayed");
    if (link.path === "direct") this.#stopAttempt("direct");
    if (before !== null) {
      before.cut();
      this.#world.onDown(this, new StarlingError("UNAVAILABLE", `a newer connection, ${link.path}, takes its place`));
      if (before.path === "direct" && link.path === "relayed") this.#world.onDirect(this, false);
    }
    // Whoever hears that the former one is gone may have closed this.
    if (this.link !== link) return;
    this.#world.onUp(this);
    if (link.path === "direct" && this.link === link) this.#world.onDirect(this, true);
    if (link.path === "relayed") this.#directSinceMs = this.#world.clock.now();
  }

  /** Its link is broken. */
  lost(link: Link, problem: StarlingError): void {
    if (this.link !== link) return;
    const nowMs = this.#world.clock.now();
    const attempts = this.#attempts[link.path];
    this.link = null;
    this.#problem = problem;
    this.#downSinceMs = nowMs;
    if (link.path === "direct") this.#directSinceMs = nowMs;
    // A link that breaks as soon as it is up is tried again ever more slowly, too.
    if (nowMs - link.openedMs > this.#world.limits.backoffMaxMs) attempts.failures = 0;
    this.#world.onDown(this, problem);
    if (link.path === "direct") this.#world.onDirect(this, false);
    this.#retry(link.path);
  }

  /** An attempt has failed. */
  failed(path: PathName, problem: StarlingError): void {
    this.#attempts[path].cancel = null;
    if (path === "direct") this.#problem = problem;
    this.#retry(path);
  }

  /** Looks for a relay, and tells again and again that the peer cannot be reached; `lagMs` is nobody's fault. */
  tick(lagMs: number, reaches: readonly NodeId[]): void {
    this.link?.tick(lagMs, reaches);
    const nowMs = this.#world.clock.now();
    this.#downSinceMs = Math.min(nowMs, this.#downSinceMs + lagMs);
    this.#directSinceMs = Math.min(nowMs, this.#directSinceMs + lagMs);
    if (this.#status === "closed" || this.link?.path === "direct") return;
    this.#tellDown(nowMs);
    const { direct, relayed } = this.#attempts;
    if (!this.isDialler || this.link !== null || direct.failures === 0) return;
    if (relayed.cancel !== null || nowMs < relayed.nextMs) return;
    const via = this.#world.findVia(this.id);
    if (via !== null) this.#dial("relayed", via);
  }

  /** Ends all; who hears of links is told of the one that was up. */
  close(problem: StarlingError): Link | null {
    const { link } = this;
    this.#status = "closed";
    this.#cancelRetry();
    this.#stopAttempt("direct");
    this.#stopAttempt("relayed");
    this.link = null;
    if (link !== null) this.#world.onDown(this, problem);
    return link;
  }

  #tellDown(nowMs: number): void {
    const { downAfterMs } = this.#world.limits;
    if (this.guestUntilMs !== Number.POSITIVE_INFINITY) return;
    if (nowMs - this.#directSinceMs >= downAfterMs) {
      this.#directSinceMs = nowMs;
      this.#world.onDirect(this, false);
    }
    if (this.link !== null || nowMs - this.#downSinceMs < this.#patienceMs) return;
    this.#downSinceMs = nowMs;
    this.#patienceMs = downAfterMs;
    this.hasLeft = false;
    const reason = this.#problem === null ? "" : `: ${this.#problem.message}`;
    const text = `no link to node ${this.id} could be opened${reason}`;
    this.#world.onUnreachable(this, new StarlingError(this.#problem?.code ?? "DEADLINE", text));
  }

  #dial(path: PathName, via: NodeId | null): void {
    const attempts = this.#attempts[path];
    attempts.cancel = null;
    const cancel = this.#world.dial(this, via);
    attempts.cancel = cancel;
  }

  #stopAttempt(path: PathName): void {
    this.#attempts[path].cancel?.();
    this.#attempts[path].cancel = null;
    if (path === "direct") this.#cancelRetry();
  }

  #retry(path: PathName): void {
    const { clock, limits } = this.#world;
    const attempts = this.#attempts[path];
    const backoffMs = Math.min(limits.backoffMinMs * 2 ** Math.min(attempts.failures, 10), limits.backoffMaxMs);
    attempts.failures += 1;
    attempts.nextMs = clock.now() + backoffMs;
    if (path === "relayed" || !this.isDialler || this.#status === "closed") return;
    this.#cancelRetry();
    this.#cancelRetry = clock.after(backoffMs, () => {
      if (this.link?.path !== "direct" && attempts.cancel === null) this.#dial("direct", null);
    });
  }
}
