import type { Metadata } from "@grpc/grpc-js";
import { type CallCertificate, certificateOf } from "../../cluster/links/call-certificate.ts";
import { isLoopback } from "../../proto/loopback.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import type { WatchedFiles } from "../../proto/watched-files.ts";
import { covers, describeNeed, type Need, type Scope } from "../access/scope.ts";
import { findToken, hashOf, type KnownToken } from "../access/token.ts";

/** Who calls. */
export interface Caller {
  /** Raises UNAUTHENTICATED, also when the token was withdrawn meanwhile or has expired, and PERMISSION_DENIED. */
  need(need: Need): void;
  /** Whether every type is allowed in a scope, so that none has to be asked for. Does not throw. */
  isFree(scope: Scope): boolean;
  /** Whose sessions these are: the token's name. Null: there are no tokens. */
  readonly holder: string | null;
}

/** Finds out who calls. */
export interface Gate {
  /** Raises UNAUTHENTICATED. */
  callerOf(call: GatedCall): Caller;
}

export interface GatedCall {
  readonly metadata: Metadata;
  /** `host:port`. */
  getPeer(): string;
}

export interface GateOptions {
  /** Null: there is no file of tokens. */
  readonly tokens: Pick<WatchedFiles<readonly KnownToken[] | null>, "value">;
  readonly transport: "plain" | "tls";
  /** Unix milliseconds. */
  readonly wall: () => number;
  readonly count: (name: string) => void;
}

/** Whoever reaches the node may do everything. */
export const anyone: Caller = { need: () => {}, isFree: () => true, holder: null };

/** Lets everyone in. */
export const openGate: Gate = { callerOf: () => anyone };

/**
 * Who may call what:
 *
 * 1. With a file of tokens, every call needs a token that is in it, from wherever it comes.
 * 2. Without one, whoever is on this machine or has shown a good certificate may do everything; so may all others in plain
 *    text, which leaves loopback only where a person has allowed that.
 * 3. A certificate that is not good is refused, whatever else is shown.
 */
export function createGate({ tokens, transport, wall, count }: GateOptions): Gate {
  const refuse = (text: string): never => {
    count("calls_unauthenticated");
    throw new StarlingError("UNAUTHENTICATED", text);
  };
  return {
    callerOf: (call) => {
      const certificate: CallCertificate = transport === "tls" ? certificateOf(call) : { kind: "none" };
      if (certificate.kind === "refused") return refuse(`the certificate is not trusted here: ${certificate.reason}`);
      if (tokens.value !== null) return new TokenCaller(call, { tokens, transport, wall, count });
      if (transport === "plain" || certificate.kind === "valid" || isLoopback(call.getPeer())) return anyone;
      return refuse(
        "there are no tokens here (`starling token new` makes one): show a certificate, or call on loopback",
      );
    },
  };
}

class TokenCaller implements Caller {
  readonly #options: GateOptions;
  readonly #hash: Buffer | null;
  #tokens: readonly KnownToken[] | null = null;
  #token: KnownToken | null = null;

  constructor({ metadata }: GatedCall, options: GateOptions) {
    const [authorization] = metadata.get("authorization");
    const bearer = /^Bearer (.+)$/i.exec(String(authorization ?? ""))?.[1];
    this.#hash = bearer === undefined ? null : hashOf(bearer);
    this.#options = options;
  }

  need(need: Need): void {
    const { name, grants } = this.#known();
    if (need.kind === "known" || covers(grants, need)) return;
    this.#options.count("calls_denied");
    const scope = describeNeed(need);
    throw new StarlingError("PERMISSION_DENIED", `token ${name} lacks the scope ${scope}: add it to its scopes`);
  }

  isFree(scope: Scope): boolean {
    return covers(this.#find()?.grants ?? [], { kind: "all", scope });
  }

  get holder(): string | null {
    return this.#find()?.name ?? null;
  }

  #known(): KnownToken {
    if (this.#hash === null) return this.#refuse("a token is needed here: --token, STARLING_TOKEN, connect({ token })");
    const known = this.#find() ?? this.#refuse("the token is not known here: it was withdrawn, or belongs elsewhere");
    if (known.expiresAt === null || known.expiresAt > this.#options.wall()) return known;
    return this.#refuse(`token ${known.name} expired at ${new Date(known.expiresAt).toISOString()}`);
  }

  /** As it stands in the file now. */
  #find(): KnownToken | null {
    const tokens = this.#options.tokens.value ?? [];
    if (this.#tokens !== tokens && this.#hash !== null) this.#token = findToken(tokens, this.#hash);
    this.#tokens = tokens;
    return this.#token;
  }

  #refuse(text: string): never {
    this.#options.count("calls_unauthenticated");
    throw new StarlingError("UNAUTHENTICATED", text);
  }
}
