import type { Clock } from "../../proto/clock.ts";
import { Compare_CompareTarget as CompareTarget, KV, Lease, type ResponseHeader } from "../../proto/gen/etcd_pb.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import { unreachable } from "../../proto/unreachable.ts";
import type { Committed, Condition, Coordinator, LeaseId, Listing, Write } from "../coordinator.ts";
import { EtcdConnection } from "./etcd-connection.ts";
import { EtcdWatch } from "./etcd-watch.ts";
import { LeaseStream } from "./lease-stream.ts";

/*
 * The coordinator on etcd, 3.4 and newer, by a client of its own of the few calls that are needed. The package etcd3 was
 * rejected: its circuit breaker refuses calls for 5 s after one failure, it repeats transactions whose outcome is unknown,
 * and a resumed watch of it can skip events.
 *
 * 1. Reads and transactions are linearizable: what was committed before a call began, the call sees.
 * 2. No call is repeated here: after UNAVAILABLE a commit may have happened or may still happen.
 * 3. A lease is granted for whole seconds, rounded up, at least 2; etcd may make it longer, never shorter.
 * 4. Beyond the contract: INTERNAL for what etcd refuses as wrong (a key written twice in one commit; by default more than
 *    128 conditions or writes, or 1.5 MiB), CONFIG for an etcd that asks for a user.
 */
export interface EtcdOptions {
  /** `http://host:port` or `host:port`, each a member of the same etcd. */
  readonly endpoints: readonly string[];
  readonly clock: Clock;
  /** Bounds every call; default 2,000. */
  readonly timeoutMs?: number;
  /** See {@link EtcdConnectionOptions}. */
  readonly isPatient?: boolean;
  /** Hears why a watch was lost; it begins anew by itself. */
  readonly onProblem?: (problem: StarlingError) => void;
}

/** Makes a coordinator; nothing travels before its first call. Raises CONFIG for endpoints that are none. */
export function openEtcd(options: EtcdOptions): Coordinator {
  return new EtcdCoordinator(options);
}

const timeoutDefaultMs = 2_000;
const ttlMinS = 2;

class EtcdCoordinator implements Coordinator {
  readonly #connection: EtcdConnection;
  readonly #leases: LeaseStream;
  readonly #clock: Clock;
  readonly #timeoutMs: number;
  readonly #onProblem: (problem: StarlingError) => void;
  readonly #watches = new Set<EtcdWatch>();

  constructor(options: EtcdOptions) {
    const { clock, timeoutMs = timeoutDefaultMs, onProblem = () => {} } = options;
    this.#connection = new EtcdConnection({ ...options, timeoutMs });
    this.#leases = new LeaseStream({ connection: this.#connection, clock, timeoutMs });
    this.#clock = clock;
    this.#timeoutMs = timeoutMs;
    this.#onProblem = onProblem;
  }

  async identity(): Promise<string> {
    const { header } = await this.#connection.ask(KV.method.range, anyRead);
    return headerOf(header).clusterId.toString();
  }

  async grant(ttlMs: number): Promise<LeaseId> {
    const seconds = Math.max(ttlMinS, Math.ceil(ttlMs / 1_000));
    const { ID } = await this.#connection.ask(Lease.method.leaseGrant, { TTL: BigInt(seconds) });
    return ID.toString();
  }

  async keepAlive(lease: LeaseId): Promise<void> {
    if ((await this.#leases.keepAlive(parseLease(lease))) <= 0n) throw noLease(lease);
  }

  async revoke(lease: LeaseId): Promise<void> {
    try {
      await this.#connection.ask(Lease.method.leaseRevoke, { ID: parseLease(lease) });
    } catch (error) {
      if (!(error instanceof StarlingError) || error.code !== "NOT_FOUND") throw error;
    }
  }

  async commit(conditions: readonly Condition[], writes: readonly Write[]): Promise<Committed> {
    const compare = conditions.map(({ key, revision }) => ({
      key: encodeText(key),
      target: CompareTarget.MOD,
      targetUnion: { case: "modRevision" as const, value: BigInt(revision) },
    }));
    // Without an operation etcd would compare with what one member happens to know.
    const success = writes.length === 0 ? [readOperation] : writes.map(toOperation);
    const { header, succeeded } = await this.#connection.ask(KV.method.txn, { compare, success });
    return { done: succeeded, revision: Number(headerOf(header).revision) };
  }

  async list(prefix: string): Promise<Listing> {
    const { header, kvs } = await this.#connection.ask(KV.method.range, rangeOf(prefix));
    const entries = kvs.map(({ key, value, modRevision, lease }) => ({
      key: decodeText(key),
      value: decodeText(value),
      revision: Number(modRevision),
      lease: lease === 0n ? null : lease.toString(),
    }));
    return { entries, revision: Number(headerOf(header).revision) };
  }

  watch(prefix: string, onHint: () => void): () => void {
    const watch = new EtcdWatch({
      connection: this.#connection,
      range: rangeOf(prefix),
      clock: this.#clock,
      timeoutMs: this.#timeoutMs,
      onHint,
      onProblem: this.#onProblem,
    });
    this.#watches.add(watch);
    return () => {
      this.#watches.delete(watch);
      watch.close();
    };
  }

  async close(): Promise<void> {
    for (const watch of this.#watches) watch.close();
    this.#watches.clear();
    this.#connection.close();
  }
}

/** A read of one key that nobody has, for the header of its answer. */
const anyRead = { key: new Uint8Array(1), keysOnly: true };
const readOperation = { request: { case: "requestRange" as const, value: anyRead } };

function toOperation(write: Write) {
  const key = encodeText(write.key);
  switch (write.kind) {
    case "put": {
      const lease = write.lease === null ? 0n : parseLease(write.lease);
      return { request: { case: "requestPut" as const, value: { key, value: encodeText(write.value), lease } } };
    }
    case "delete":
      return { request: { case: "requestDeleteRange" as const, value: { key } } };
    default:
      return unreachable(write);
  }
}

/** Up to the key that follows all with this prefix: UTF-8 has no byte 255 that could overflow. */
function rangeOf(prefix: string): { readonly key: Uint8Array; readonly rangeEnd: Uint8Array } {
  // From the smallest key there is; a zero byte as the end means "no end".
  if (prefix === "") return { key: new Uint8Array(1), rangeEnd: new Uint8Array(1) };
  const key = encodeText(prefix);
  const rangeEnd = Uint8Array.from(key, (byte, index) => (index === key.length - 1 ? byte + 1 : byte));
  return { key, rangeEnd };
}

/** As etcd counts them. A lease that cannot be one is gone; 0 would mean "without a lease" in a write. */
function parseLease(lease: LeaseId): bigint {
  if (!/^[1-9]\d{0,18}$/.test(lease)) throw noLease(lease);
  return BigInt(lease);
}

function noLease(lease: LeaseId): StarlingError {
  return new StarlingError("NOT_FOUND", `there is no lease ${lease} in etcd`);
}

function headerOf(header: ResponseHeader | undefined): ResponseHeader {
  if (header === undefined) throw new StarlingError("INTERNAL", "etcd answered without a header");
  return header;
}

function encodeText(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

function decodeText(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}
