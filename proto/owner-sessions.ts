import { callUnary, type Dialled } from "./client-call.ts";
import type { Dialler } from "./client-dialler.ts";
import type { Clock } from "./clock.ts";
import { Admin, type OwnersReply } from "./gen/starling_pb.ts";
import type { OwnerMap } from "./owner-map.ts";
import type { OwnerSession } from "./owner-session.ts";

export interface OwnerSessionsOptions {
  /** The first session; it is connected. */
  readonly home: OwnerSession;
  readonly map: OwnerMap;
  /** A session that tries these addresses in turn. */
  readonly open: (addresses: readonly string[]) => OwnerSession;
  readonly clock: Clock;
  readonly dialler: Dialler;
}

/** Who owns what, as a node knows it. */
export function askOwners(node: Dialled): Promise<OwnersReply> {
  return callUnary(node, Admin.method.owners, {}, askMs);
}

const askMs = 1_000;
const everyMs = 1_000;
/** While a session has no node, or a node is silent. */
const hurriedMs = 250;
const silentMaxMs = 1_000;
/** Nodes that are silent for longer are asked only when all are. */
const quietMaxMs = 500;
const closeGraceMs = 5_000;

/**
 * The sessions of one client, one for each owner, and what it knows of owners: it asks one node after another as long as
 * something is sent. A session whose owner has lost all its shards and does not answer goes on elsewhere; one that is
 * elsewhere comes back when its owner answers; one that has no work any more ends.
 */
export class OwnerSessions {
  readonly home: OwnerSession;
  readonly map: OwnerMap;
  readonly #options: OwnerSessionsOptions;
  readonly #byAddress = new Map<string, OwnerSession>();
  /** Nodes that are asked just now whether a session may come back to them. */
  readonly #probed = new Set<string>();
  #turn = 0;
  #status: "idle" | "asking" | "stopped" = "idle";
  #isStirred = false;
  #cancelTimer = () => {};

  constructor(options: OwnerSessionsOptions) {
    this.#options = options;
    this.home = options.home;
    this.map = options.map;
    this.#byAddress.set(options.home.node?.address ?? "", options.home);
  }

  /** The session for a shard; one that is new is not connected yet. */
  of(shard: number): OwnerSession {
    const address = this.map.addressOf(shard);
    if (address === null) return this.home;
    const known = this.#byAddress.get(address);
    if (known !== undefined) return known;
    const opened = this.#options.open([address, ...this.#othersThan(address)]);
    this.#byAddress.set(address, opened);
    return opened;
  }

  /** Something is sent: what is known of owners must be kept up to date. */
  stir(): void {
    this.#isStirred = true;
    if (this.#status === "idle") this.#ask();
  }

  /** Asks nobody any more. */
  stop(): void {
    this.#status = "stopped";
    this.#cancelTimer();
  }

  /** Ends all sessions; everything was acknowledged before. */
  async close(graceMs: number): Promise<void> {
    this.stop();
    await Promise.all([...this.#byAddress.values()].map((session) => session.close(graceMs)));
    this.#options.dialler.close();
  }

  #ask(): void {
    this.#status = "asking";
    this.#isStirred = false;
    const sessions = [...this.#byAddress.values()];
    const talking = sessions.filter(({ silentMs }) => silentMs < quietMaxMs);
    const nodes = (talking.length > 0 ? talking : sessions).flatMap(({ node }) => (node === null ? [] : [node]));
    this.#turn += 1;
    const node = nodes[this.#turn % nodes.length];
    const asked = node === undefined ? Promise.reject(new Error("no node")) : askOwners(node);
    asked.then(
      (reply) => this.#tend(reply),
      // What is known may be stale: then nodes forward. The next one is asked soon.
      () => this.#tend(null),
    );
  }

  #tend(reply: OwnersReply | null): void {
    if (this.#status === "stopped") return;
    if (reply !== null) this.map.learn(reply);
    const owners = this.map.addresses();
    for (const [address, session] of this.#byAddress) this.#tendOne(address, session, owners);
    const sessions = [...this.#byAddress.values()];
    if (!this.#isStirred && sessions.every(({ isIdle }) => isIdle)) {
      this.#status = "idle";
      return;
    }
    const isWell = reply !== null && sessions.every(({ node, silentMs }) => node !== null && silentMs < silentMaxMs);
    this.#cancelTimer = this.#options.clock.after(isWell ? everyMs : hurriedMs, () => this.#ask());
  }

  #tendOne(address: string, session: OwnerSession, owners: ReadonlySet<string>): void {
    const here = session.node?.address ?? null;
    if (owners.has(address)) {
      if (here !== null && here !== address) this.#callBack(address, session);
    } else if (session.isIdle && session !== this.home) {
      this.#byAddress.delete(address);
      void session.close(closeGraceMs);
    } else if (here === address && session.silentMs > silentMaxMs) session.move(this.#othersThan(address));
  }

  /** Brings a session back to its owner, if that answers. */
  #callBack(address: string, session: OwnerSession): void {
    const { dialler } = this.#options;
    if (this.#probed.has(address) || !dialler.allows(address)) return;
    this.#probed.add(address);
    const probe = dialler.dial(address);
    const done = (): void => {
      this.#probed.delete(address);
      probe.grpc.close();
    };
    askOwners(probe).then((reply) => {
      done();
      if (this.#status === "stopped") return;
      this.map.learn(reply);
      session.move([address]);
    }, done);
  }

  #othersThan(address: string): string[] {
    return [...this.map.addresses()].filter((one) => one !== address);
  }
}
