import { atBeat } from "../../proto/clock.ts";
import type { NodeId } from "../../proto/ids.ts";
import { StarlingError, toStarlingError } from "../../proto/starling-error.ts";
import { Link, type LinkEvents } from "./link.ts";
import { dialLink, type Greeted } from "./link-dial.ts";
import { type ArrivalPath, LinkDoor } from "./link-door.ts";
import type { Hello } from "./link-frame.ts";
import { judgeAnswer, judgeHello, otherName, planHello } from "./link-hello.ts";
import { defaultLinkLimits, type LinkLimits, type LinkOptions } from "./link-options.ts";
import { LinkPeer } from "./link-peer.ts";
import { createRelayWires, type RelayWires } from "./link-relay.ts";
import type { Dial, Wire, WireListener } from "./link-wire.ts";
import type { LinkListener, Links, Peer } from "./links.ts";

/**
 * The links of one node, over any kind of wire.
 *
 * 1. The node with the smaller id dials; whoever dials the wrong way, or means another node, is refused with a code.
 * 2. Per peer at most one link is up. `onUp` and `onDown` alternate, but for `onDown` repeated while it stays down; after
 *    `onDown` nothing of that link is delivered.
 * 3. A link is up at who dialled when both wires are welcomed, at the other end with the `ready` that precedes all messages.
 *    A later `ready` replaces the link before, as its dialler has given that one up.
 * 4. Nobody is blamed for time in which this node stood still: what its own ticks come late is given to all.
 * 5. A node that was dropped is refused until it is named again; one that was never named is let in for a while, as a guest:
 *    it may know of this node before this node knows of it.
 */
export class LinkHub implements Links {
  readonly #options: LinkOptions;
  readonly #limits: LinkLimits;
  readonly #dialWire: Dial;
  readonly #door: LinkDoor;
  readonly #relay: RelayWires;
  readonly #peers = new Map<NodeId, LinkPeer>();
  readonly #listeners = new Set<LinkListener>();
  readonly #dropped = new Set<NodeId>();
  readonly #refused = new Set<string>();
  /** Links of others that wait for their `ready`, each with what is to be called then. */
  readonly #greeted = new Map<Link, () => void>();
  readonly #events: LinkEvents;
  #named: readonly Peer[] = [];
  #selfId: NodeId;
  #connections = 0;
  #orders = 0;
  #cancelTick = () => {};
  #closed: Promise<void> | null = null;

  constructor(options: LinkOptions, dialWire: Dial) {
    const limits = { ...defaultLinkLimits, ...options.limits };
    const { clock, counters } = options;
    this.#options = options;
    this.#limits = limits;
    this.#dialWire = dialWire;
    this.#selfId = options.self().id;
    this.#events = this.#createEvents();
    this.#door = new LinkDoor({
      clock,
      timeoutMs: limits.dialTimeoutMs,
      arrivalsMax: limits.arrivalsMax,
      judge: (hello) => this.#judgeGuest(hello),
      welcome: (hello) => planHello(options, limits, hello.node, hello.connection),
      onGreeted: (greeted, path, settle) => this.#onArrived(greeted, path, settle),
      onRefused: (hello, problem) => this.#onRefused(hello, problem),
    });
    this.#relay = createRelayWires({
      clock,
      self: () => this.#selfId,
      carry: (to, kind, frame) => this.#directLink(to)?.carry(kind, frame) ?? "refused",
      accept: (wire) => this.#door.accept(wire, "relayed"),
      count: (name, by) => counters.add(name, by),
    });
    this.#tickLater();
  }

  connect(peers: readonly Peer[]): void {
    if (this.#closed !== null) return;
    this.#named = peers.filter(({ id }) => id !== this.#options.self().id);
    this.#renewSelf();
    const ids = new Set(this.#named.map(({ id }) => id));
    for (const peer of [...this.#peers.values()]) {
      if (!ids.has(peer.id) && peer.guestUntilMs === Number.POSITIVE_INFINITY) this.#drop(peer);
    }
    for (const named of this.#named) {
      this.#dropped.delete(named.id);
      const known = this.#peers.get(named.id);
      if (known === undefined) this.#addPeer(named, Number.POSITIVE_INFINITY);
      else this.#name(known, named);
    }
  }

  /** As {@link Links.send}; the body must not change afterwards. Raises TOO_LARGE above `messageMaxBytes`. */
  send(to: NodeId, body: Uint8Array): boolean {
    const { messageMaxBytes } = this.#limits;
    if (body.length > messageMaxBytes) {
      throw new StarlingError("TOO_LARGE", `a message of ${body.length} bytes; a link takes up to ${messageMaxBytes}`);
    }
    const link = this.#peers.get(to)?.link ?? null;
    if (link === null) return false;
    const isSent = link.send(body);
    if (!isSent) this.#options.counters.add("link_credits_exhausted");
    return isSent;
  }

  isUp(peer: NodeId): boolean {
    return this.pathOf(peer) !== "down";
  }

  hasLeft(peer: NodeId): boolean {
    return this.#peers.get(peer)?.hasLeft ?? false;
  }

  /** How long a heartbeat takes to a peer and back; null: it is not known. */
  roundTripMsOf(peer: NodeId): number | null {
    return this.#peers.get(peer)?.link?.roundTripMs ?? null;
  }

  pathOf(peer: NodeId): "direct" | "relayed" | "down" {
    return this.#peers.get(peer)?.path ?? "down";
  }

  /** The hash of the model of a peer whose link is up. */
  modelHashOf(peer: NodeId): string | null {
    return this.#peers.get(peer)?.link?.modelHash ?? null;
  }

  on(listener: LinkListener): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** Takes a wire that another node has opened. */
  accept(wire: Wire): WireListener {
    if (this.#closed === null) return this.#door.accept(wire, "direct");
    this.#options.clock.soon(() => wire.cut());
    return { onFrame: () => {}, onDrain: () => {}, onEnd: () => {} };
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    this.#cancelTick();
    this.#door.close();
    for (const link of this.#greeted.keys()) link.cut();
    this.#greeted.clear();
    const problem = new StarlingError("UNAVAILABLE", "this node closes its links");
    const peers = [...this.#peers.values()];
    // Nobody is missed who is left in order.
    this.#peers.clear();
    const links = peers.map((peer) => peer.close(problem)).filter((link) => link !== null);
    // What is relayed ends with a frame on a direct link.
    links.sort((a, b) => Number(a.path === "direct") - Number(b.path === "direct"));
    await Promise.all(links.map((link) => link.leave()));
  }

  #createEvents(): LinkEvents {
    const { counters } = this.#options;
    return {
      onMessage: (link, body) => this.#tell((listener) => listener.onMessage(link.peer, body)),
      onReady: (link, order) => this.#onReady(link, order),
      onRelayed: (link, kind, frame) => {
        if (link.path === "direct") this.#relay.onFrame(link.peer, kind, frame);
      },
      onDrain: (link) => {
        if (link.path === "direct") this.#relay.onDrain(link.peer);
      },
      onFarewell: (link) => {
        const peer = this.#peers.get(link.peer);
        if (peer?.link === link) peer.hasLeft = true;
      },
      onBroken: (link, problem) => {
        this.#greeted.get(link)?.();
        this.#greeted.delete(link);
        this.#peers.get(link.peer)?.lost(link, problem);
      },
      count: (name, by) => counters.add(name, by),
    };
  }

  /** A guest may turn out to have come under a name that is not its own. */
  #name(known: LinkPeer, named: Peer): void {
    known.name(named);
    const { link } = known;
    if (link === null || link.peerName === named.name) return;
    link.cut();
    known.lost(link, otherName(link.peerName, named));
  }

  #addPeer(named: Peer, guestUntilMs: number): LinkPeer {
    const { clock, log, counters } = this.#options;
    const isDialler = this.#selfId < named.id;
    const peer = new LinkPeer(
      { ...named, isDialler, guestUntilMs },
      {
        clock,
        limits: this.#limits,
        dial: (to, via) => this.#dial(to, via),
        findVia: (to) => this.#findVia(to),
        onUp: (to) => {
          counters.add("links_opened");
          to.loggedCode = null;
          log.info({ peer: to.id, path: to.path }, "link opened");
          this.#tell((listener) => listener.onUp(to.id));
        },
        onDown: (to, problem) => {
          counters.add("links_lost");
          this.#relay.onLost(to.id);
          this.#tellDown(to, problem);
        },
        onUnreachable: (to, problem) => {
          counters.add("links_unreachable");
          this.#tellDown(to, problem);
        },
        onDirect: (to, isReachable) => this.#tell((listener) => listener.onDirect?.(to.id, isReachable)),
      },
    );
    this.#peers.set(named.id, peer);
    return peer;
  }

  /** Told each time, logged when the code changes. That of a node which has left, or is no member any more, is not missed. */
  #tellDown(peer: LinkPeer, problem: StarlingError): void {
    const { log } = this.#options;
    const { code, message } = problem;
    if (peer.hasLeft || !this.#peers.has(peer.id)) log.info({ peer: peer.id, problem: message }, "link closed");
    else if (code !== peer.loggedCode) log.warn({ peer: peer.id, code, problem: message }, "link lost");
    peer.loggedCode = code;
    this.#tell((listener) => listener.onDown(peer.id, problem));
  }

  #dial(peer: LinkPeer, via: NodeId | null): () => void {
    this.#connections += 1;
    const connection = this.#connections;
    const path = via === null ? "direct" : "relayed";
    const { id, nodeName: name, address } = peer;
    return dialLink({
      clock: this.#options.clock,
      timeoutMs: this.#limits.dialTimeoutMs,
      hello: planHello(this.#options, this.#limits, id, connection),
      open: (kind, listener) =>
        via === null
          ? this.#dialWire({ id, name, address }, kind, listener)
          : this.#relay.open({ peer: id, via, kind, connection }, listener),
      judge: (hello) => judgeHello(hello, this.#options) ?? judgeAnswer(hello, { id, name, address }),
      onGreeted: (greeted) => {
        const link = this.#createLink(greeted, path);
        this.#orders += 1;
        link.open(this.#orders, true);
        peer.adopt(link);
        return { control: link.onControl, data: link.onData };
      },
      onFailed: (problem, isRefusal) => {
        this.#options.counters.add(isRefusal ? "link_dials_refused" : "link_dials_failed");
        if (isRefusal) this.#logRefusal(peer, problem);
        peer.failed(path, problem);
      },
    });
  }

  #logRefusal(peer: LinkPeer, problem: StarlingError): void {
    const said = `by ${peer.id} ${problem.code}`;
    if (this.#refused.has(said)) return;
    this.#remember(this.#refused, said);
    this.#options.log.warn({ peer: peer.id, code: problem.code, problem: problem.message }, "link refused by peer");
  }

  #onRefused(hello: Hello | null, problem: StarlingError): void {
    this.#options.counters.add("link_arrivals_refused");
    const said = `${hello?.node ?? ""} ${problem.code}`;
    if (this.#refused.has(said)) return;
    this.#remember(this.#refused, said);
    const fields = { peer: hello?.node ?? null, name: hello?.name ?? null, code: problem.code };
    this.#options.log.warn({ ...fields, problem: problem.message }, "link refused");
  }

  #judgeGuest(hello: Hello): StarlingError | null {
    this.#renewSelf();
    const problem = judgeHello(hello, this.#options);
    if (problem !== null) return problem;
    const named = this.#named.find(({ id }) => id === hello.node);
    if (named !== undefined && named.name !== hello.name) return otherName(hello.name, named);
    if (hello.node > this.#selfId) return new StarlingError("UNAVAILABLE", "the node with the smaller id dials");
    if (this.#dropped.has(hello.node)) return new StarlingError("UNAVAILABLE", "the cluster has given this node up");
    const guests = [...this.#peers.values()].filter(({ guestUntilMs }) => guestUntilMs !== Number.POSITIVE_INFINITY);
    if (this.#peers.has(hello.node) || guests.length < this.#limits.guestsMax) return null;
    return new StarlingError("BUSY", "too many nodes that are not known here yet");
  }

  #onArrived(greeted: Greeted, path: ArrivalPath, settle: () => void): Record<Wire["kind"], WireListener> {
    const link = this.#createLink(greeted, path);
    this.#greeted.set(link, settle);
    return { control: link.onControl, data: link.onData };
  }

  #onReady(link: Link, order: number): void {
    const settle = this.#greeted.get(link);
    if (settle === undefined) return;
    settle();
    this.#greeted.delete(link);
    const known = this.#peers.get(link.peer);
    if (this.#dropped.has(link.peer) || (known?.link?.order ?? 0) > order) return link.cut();
    link.open(order, false);
    const guestUntilMs = this.#options.clock.now() + this.#limits.guestMs;
    const guest = { id: link.peer, name: "", address: "" };
    (known ?? this.#addPeer(guest, guestUntilMs)).adopt(link);
  }

  #createLink({ hello, control, data }: Greeted, path: ArrivalPath): Link {
    return new Link({
      path,
      hello,
      control,
      data,
      clock: this.#options.clock,
      limits: this.#limits,
      events: this.#events,
    });
  }

  #directLink(peer: NodeId): Link | null {
    const link = this.#peers.get(peer)?.link ?? null;
    return link?.path === "direct" ? link : null;
  }

  #findVia(peer: NodeId): NodeId | null {
    const able = [...this.#peers.values()].filter(({ id }) => this.#directLink(id)?.reaches.has(peer));
    return able.map(({ id }) => id).sort()[0] ?? null;
  }

  #drop(peer: LinkPeer): void {
    this.#peers.delete(peer.id);
    this.#remember(this.#dropped, peer.id);
    void peer.close(new StarlingError("UNAVAILABLE", "the node is no member any more"))?.end();
  }

  /** A node that was given up joins again under a new id: its links begin anew. */
  #renewSelf(): void {
    const { id } = this.#options.self();
    if (id === this.#selfId) return;
    this.#selfId = id;
    const problem = new StarlingError("UNAVAILABLE", "this node has a new id");
    for (const peer of [...this.#peers.values()]) {
      this.#peers.delete(peer.id);
      void peer.close(problem)?.end();
    }
    for (const link of this.#greeted.keys()) link.cut();
    this.#greeted.clear();
    for (const peer of this.#named) {
      if (peer.id !== id) this.#addPeer(peer, Number.POSITIVE_INFINITY);
    }
  }

  #tickLater(): void {
    const { clock } = this.#options;
    const everyMs = this.#limits.heartbeatMs / 3;
    this.#cancelTick = atBeat(clock, everyMs, (lagMs) => {
      this.#tickLater();
      this.#tick(lagMs);
    });
  }

  #tick(lagMs: number): void {
    this.#renewSelf();
    const nowMs = this.#options.clock.now();
    const reaches = [...this.#peers.keys()].filter((id) => this.#directLink(id) !== null);
    for (const peer of [...this.#peers.values()]) {
      if (peer.guestUntilMs > nowMs) peer.tick(lagMs, reaches);
      else {
        this.#peers.delete(peer.id);
        void peer.close(new StarlingError("UNAVAILABLE", "the node is not known here"))?.end();
      }
    }
  }

  #tell(run: (listener: LinkListener) => void): void {
    for (const listener of this.#listeners) {
      try {
        run(listener);
      } catch (error) {
        this.#options.counters.add("link_listener_failed");
        const { code, message } = toStarlingError(error);
        this.#options.log.error({ code, problem: message }, "link listener failed");
      }
    }
  }

  /** Sets of what was seen keep the latest thousand. */
  #remember<T>(seen: Set<T>, item: T): void {
    const seenMax = 1_000;
    const [oldest] = seen;
    if (seen.size >= seenMax && oldest !== undefined) seen.delete(oldest);
    seen.add(item);
  }
}
