/**
 * The coordinator in memory: for a cluster of one, for tests, and for simulations. It behaves as etcd does where membership can
 * tell the difference, and answers are never immediate: a call takes effect in a later turn, its answer comes in that turn.
 *
 * 1. One revision for all: a commit or a lapse that changes something raises it by one; one that changes nothing does not.
 * 2. A lease lapses by the clock, its whole time to live (whole seconds, at least two) after it was granted or last kept alive.
 * 3. A put under a lease that is gone is refused with NOT_FOUND, and nothing of its commit happens.
 * 4. Hints come later than what they hint at, and to each client by its own way, which can be cut.
 */
import type { Clock } from "../proto/clock.ts";
import { StarlingError } from "../proto/starling-error.ts";
import type { Committed, Condition, Coordinator, KeyValue, LeaseId, Listing, Write } from "./coordinator.ts";

/** The keys, and a way to them that never fails. */
export interface MemoryCoordinator extends Coordinator {
  /** A way of its own to the same keys, on which `faultOf` is asked what befalls each call, each time. */
  client(faultOf?: (call: CoordinatorCall) => CoordinatorFault): Coordinator;
  /** Loses all keys, leases and revisions, as an etcd that was started on an empty disk; watches begin anew. */
  wipe(identity?: string): void;
}

export type CoordinatorCall = "identity" | "grant" | "keepAlive" | "revoke" | "commit" | "list" | "hint";

/**
 * What befalls a call. `refused`: it fails at once and does nothing; `broken`: it does what it should, and then seems to
 * have failed; `slow`: it takes effect after `beforeMs`, and its answer comes `afterMs` later, infinity meaning never. A call
 * without an answer fails at its deadline, and may take effect even later. A hint is lost, or comes late.
 */
export type CoordinatorFault =
  | { readonly kind: "none" }
  | { readonly kind: "refused" }
  | { readonly kind: "broken" }
  | { readonly kind: "slow"; readonly beforeMs: number; readonly afterMs: number };

export interface MemoryCoordinatorOptions {
  readonly clock: Clock;
  readonly identity?: string;
  /** The deadline of a call. */
  readonly timeoutMs?: number;
}

/** A coordinator without keys. Its leases set timers: `close` ends them. */
export function createMemoryCoordinator(options: MemoryCoordinatorOptions): MemoryCoordinator {
  const { clock, identity = "memory", timeoutMs = 2000 } = options;
  const store = new MemoryKeys(clock, identity);
  const open = (faultOf: (call: CoordinatorCall) => CoordinatorFault): Coordinator =>
    createClient({ store, clock, timeoutMs, faultOf });
  const whole = open(() => ({ kind: "none" }));
  return {
    ...whole,
    client: (faultOf = () => ({ kind: "none" })) => open(faultOf),
    wipe: (next = identity) => store.wipe(next),
    close: async () => {
      await whole.close();
      store.close();
    },
  };
}

const minTtlMs = 2000;

interface Lease {
  readonly ttlMs: number;
  readonly keys: Set<string>;
  cancel: () => void;
}

interface Watch {
  readonly prefix: string;
  readonly onHint: () => void;
}

/** What the coordinator holds. Its methods take effect at once. */
class MemoryKeys {
  identity: string;
  readonly watches = new Set<Watch>();
  readonly #clock: Clock;
  readonly #keys = new Map<string, KeyValue>();
  readonly #leases = new Map<LeaseId, Lease>();
  #revision = 1;
  #granted = 0;

  constructor(clock: Clock, identity: string) {
    this.#clock = clock;
    this.identity = identity;
  }

  grant(ttlMs: number): LeaseId {
    const id = String(++this.#granted);
    const whole = Math.max(minTtlMs, Math.ceil(ttlMs / 1000) * 1000);
    this.#leases.set(id, { ttlMs: whole, keys: new Set(), cancel: this.#clock.after(whole, () => this.revoke(id)) });
    return id;
  }

  keepAlive(id: LeaseId): void {
    const lease = this.#lease(id);
    lease.cancel();
    lease.cancel = this.#clock.after(lease.ttlMs, () => this.revoke(id));
  }

  revoke(id: LeaseId): void {
    const lease = this.#leases.get(id);
    if (lease === undefined) return;
    lease.cancel();
    const writes = [...lease.keys].map((key): Write => ({ kind: "delete", key }));
    this.#write(writes);
    this.#leases.delete(id);
  }

  commit(conditions: readonly Condition[], writes: readonly Write[]): Committed {
    if (new Set(writes.map(({ key }) => key)).size < writes.length) {
      throw new StarlingError("INTERNAL", "a commit writes the same key twice");
    }
    const done = conditions.every(({ key, revision }) => (this.#keys.get(key)?.revision ?? 0) === revision);
    if (done) {
      for (const write of writes) if (write.kind === "put" && write.lease !== null) this.#lease(write.lease);
      this.#write(writes);
    }
    return { done, revision: this.#revision };
  }

  list(prefix: string): Listing {
    const entries = [...this.#keys.values()].filter(({ key }) => key.startsWith(prefix));
    return { entries: entries.sort((a, b) => (a.key < b.key ? -1 : 1)), revision: this.#revision };
  }

  wipe(identity: string): void {
    this.close();
    this.identity = identity;
    this.#keys.clear();
    this.#revision = 1;
    this.#hint(() => true);
  }

  /** Ends the leases' timers, and the leases with them. */
  close(): void {
    for (const lease of this.#leases.values()) lease.cancel();
    this.#leases.clear();
  }

  #lease(id: LeaseId): Lease {
    const lease = this.#leases.get(id);
    if (lease === undefined) throw new StarlingError("NOT_FOUND", `lease ${id} is gone`);
    return lease;
  }

  #write(writes: readonly Write[]): void {
    const real = writes.filter(({ kind, key }) => kind === "put" || this.#keys.has(key));
    if (real.length === 0) return;
    this.#revision++;
    for (const write of real) {
      const { key } = write;
      const former = this.#keys.get(key)?.lease ?? null;
      if (former !== null) this.#leases.get(former)?.keys.delete(key);
      this.#keys.delete(key);
      if (write.kind === "delete") continue;
      this.#keys.set(key, { key, value: write.value, revision: this.#revision, lease: write.lease });
      if (write.lease !== null) this.#lease(write.lease).keys.add(key);
    }
    this.#hint((prefix) => real.some(({ key }) => key.startsWith(prefix)));
  }

  #hint(concerns: (prefix: string) => boolean): void {
    for (const watch of this.watches) if (concerns(watch.prefix)) watch.onHint();
  }
}

interface ClientOptions {
  readonly store: MemoryKeys;
  readonly clock: Clock;
  readonly timeoutMs: number;
  readonly faultOf: (call: CoordinatorCall) => CoordinatorFault;
}

function createClient(options: ClientOptions): Coordinator {
  const { store } = options;
  const status = { closed: false };
  const watches = new Set<Watch>();
  const call = <T>(name: CoordinatorCall, effect: () => T): Promise<T> =>
    status.closed ? Promise.reject(unavailable(name, "the connection is closed")) : befall(options, name, effect);
  return {
    identity: () => call("identity", () => store.identity),
    grant: (ttlMs) => call("grant", () => store.grant(ttlMs)),
    keepAlive: (lease) => call("keepAlive", () => store.keepAlive(lease)),
    revoke: (lease) => call("revoke", () => store.revoke(lease)),
    commit: (conditions, writes) => call("commit", () => store.commit(conditions, writes)),
    list: (prefix) => call("list", () => store.list(prefix)),
    watch: (prefix, onHint) => {
      const watch: Watch = { prefix, onHint: () => carryHint(options, () => watches.has(watch) && onHint()) };
      watches.add(watch);
      store.watches.add(watch);
      return () => {
        watches.delete(watch);
        store.watches.delete(watch);
      };
    },
    close: async () => {
      status.closed = true;
      for (const watch of watches) store.watches.delete(watch);
      watches.clear();
    },
  };
}

/** Does `effect` as the fault of this call lets it. */
function befall<T>({ clock, timeoutMs, faultOf }: ClientOptions, name: CoordinatorCall, effect: () => T): Promise<T> {
  const fault = faultOf(name);
  return new Promise((resolve, reject) => {
    const act = (answer: (give: () => void) => void): void => {
      try {
        const result = effect();
        answer(() => resolve(result));
      } catch (error) {
        answer(() => reject(error));
      }
    };
    if (fault.kind === "refused") return clock.soon(() => reject(unavailable(name, "refused")));
    if (fault.kind === "broken") return clock.soon(() => act(() => reject(unavailable(name, "the connection broke"))));
    if (fault.kind === "none") return clock.soon(() => act((give) => give()));
    const stop = clock.after(timeoutMs, () => reject(unavailable(name, "no answer within the deadline")));
    later(clock, fault.beforeMs, () =>
      act((give) =>
        later(clock, fault.afterMs, () => {
          stop();
          give();
        }),
      ),
    );
  });
}

function carryHint({ clock, faultOf }: ClientOptions, hint: () => void): void {
  const fault = faultOf("hint");
  if (fault.kind === "none") clock.soon(hint);
  else if (fault.kind === "slow") later(clock, fault.beforeMs + fault.afterMs, hint);
}

function later(clock: Clock, ms: number, run: () => void): void {
  if (Number.isFinite(ms)) clock.after(ms, run);
}

function unavailable(call: CoordinatorCall, reason: string): StarlingError {
  return new StarlingError("UNAVAILABLE", `the coordinator did not answer ${call}: ${reason}`);
}
