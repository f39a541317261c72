import type { MessageInitShape } from "@bufbuild/protobuf";
import type { LooseDatapoint } from "../../modules/datapoint.ts";
import type { Model } from "../../modules/model.ts";
import { AckLevel, type Hello, type NodeMessageSchema } from "../../proto/gen/starling_pb.ts";
import type { SessionId } from "../../proto/ids.ts";
import { shardOf } from "../../proto/shard-of.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import { unreachable } from "../../proto/unreachable.ts";
import { closedSession } from "../store/session.ts";
import { drawnPrefix, keyPrefix } from "../store/session-life.ts";
import type { StoredSession } from "../store/store.ts";
import { type AckQueue, canAck, createAckQueue, takeAcks } from "./acks.ts";
import { type LooseBatch, splitBatch } from "./batch.ts";
import { isOdd, nameMaxLength } from "./name.ts";
import {
  createSessionState,
  type OpenBatch,
  type SessionEffect,
  type SessionMessage,
  type SessionState,
  stepSession,
} from "./session.ts";
import type { Settled } from "./settler.ts";
import { looseOf, type WireDatapoint } from "./wire-datapoint.ts";
import { wireToken } from "./wire-token.ts";

/**
 * The protocol of one ingest stream on the node's side: greeting, credits, acknowledgements, endings.
 *
 * T1  Before the welcome only a hello is taken; after an ending nothing is.
 * T2  A batch counts against the credits until its `durable` acknowledgement is sent; who exceeds them is cut with BUSY.
 * T3  Acknowledgements leave once a turn, as ranges, in the order of arrival; while the connection is full none leave, so
 *     a client that does not read gets no credits back and what waits for it stays bounded.
 * T4  While `unprocessedMax` batches wait to be processed, no `durable` acknowledgement leaves either.
 * T5  A final failure of one batch is a problem with its number and ends the stream; the session can be resumed.
 * T6  The client's close or half-close takes effect when all batches have reached the session's level.
 * T7  What the client knows to be durable from an earlier connection is settled: its `processed` acknowledgement comes once,
 *     before any other of that level. Nothing of it is offered again.
 */
export interface StreamState {
  readonly limits: StreamLimits;
  status: "greeting" | "opening" | "open" | "closing" | "sealing" | "finishing" | "ended";
  session: SessionId | null;
  tracks: SessionState;
  level: AckLevel;
  lastNumber: number;
  usedBatches: number;
  usedBytes: number;
  turn: "none" | "asked";
  /** The number up to which the client waits for what is durable; null: it does not. */
  settling: number | null;
  readonly durable: AckQueue;
  readonly processed: AckQueue;
}

/** What the node allows, and what it says of itself. */
export interface StreamLimits {
  readonly model: Model;
  readonly entityShards: number;
  readonly clusterId: string;
  readonly node: string;
  readonly addresses: () => readonly string[];
  readonly creditBatches: number;
  readonly creditBytes: number;
  readonly unprocessedMax: number;
  /** Asked for each batch: how its datapoints are read, which may refuse them. Default: as they are. Does not throw. */
  readonly reader?: () => (datapoint: WireDatapoint) => LooseDatapoint;
}

export const defaultCredits = { creditBatches: 8, creditBytes: 16 * 1024 * 1024, unprocessedMax: 4096 } as const;

export const protocolVersion = 1;

export interface WireBatch extends LooseBatch<WireDatapoint> {
  readonly predecessor: number | null;
}

export type StreamMessage =
  | { readonly kind: "hello"; readonly hello: Hello }
  | { readonly kind: "session"; readonly stored: StoredSession }
  | { readonly kind: "batch"; readonly batch: WireBatch }
  | { readonly kind: "settle"; readonly through: number }
  | { readonly kind: "settled"; readonly settled: Settled }
  | { readonly kind: "close" }
  /** The session's end is durable. */
  | { readonly kind: "session-closed" }
  /** The client has half-closed. */
  | { readonly kind: "ended" }
  | { readonly kind: "tracks"; readonly message: SessionMessage }
  | { readonly kind: "turn" }
  | { readonly kind: "leaving"; readonly addresses: readonly string[] }
  /** Something outside ends the stream. */
  | { readonly kind: "cut"; readonly error: StarlingError };

export type NodeMessageInit = MessageInitShape<typeof NodeMessageSchema>;

export type StreamEffect =
  | { readonly kind: "open"; readonly session: string; readonly named: boolean }
  | { readonly kind: "welcome"; readonly session: SessionId; readonly opening: number }
  | { readonly kind: "send"; readonly message: NodeMessageInit }
  | Extract<SessionEffect, { kind: "opened" | "offer" | "rest" }>
  /** Batches of which the client is told that they have reached a level. */
  | { readonly kind: "acked"; readonly level: AckLevel; readonly batches: readonly OpenBatch[] }
  /** Send the message `turn` when this turn of the event loop is over and the connection takes writes. */
  | { readonly kind: "turn" }
  /** Have `settled` sent when everything of the channel up to this number is processed. */
  | { readonly kind: "settle"; readonly channel: string; readonly through: number }
  | { readonly kind: "close-session"; readonly session: SessionId }
  | { readonly kind: "end" };

/** A stream before its hello. */
export function createStreamState(limits: StreamLimits): StreamState {
  return {
    limits,
    status: "greeting",
    session: null,
    tracks: createSessionState(false),
    level: AckLevel.DURABLE,
    lastNumber: 0,
    usedBatches: 0,
    usedBytes: 0,
    turn: "none",
    settling: null,
    durable: createAckQueue(AckLevel.DURABLE),
    processed: createAckQueue(AckLevel.PROCESSED),
  };
}

/** The stream's next state, in place, and what is to be done. */
export function stepStream(state: StreamState, message: StreamMessage): StreamEffect[] {
  if (state.status === "ended") return [];
  switch (message.kind) {
    case "hello":
      return onHello(state, message.hello);
    case "session":
      return onSession(state, message.stored);
    case "batch":
      return onBatch(state, message.batch);
    case "settle":
      return onSettle(state, message.through);
    case "settled":
      return onSettled(state, message.settled);
    case "close":
      return state.status === "sealing" ? [] : beginEnd(state, "closing");
    case "session-closed":
      return end(state, null);
    case "ended":
      return state.status === "closing" || state.status === "sealing" ? [] : beginEnd(state, "finishing");
    case "tracks":
      return onTracks(state, message.message);
    case "turn":
      return onTurn(state);
    case "leaving":
      return [{ kind: "send", message: { kind: { case: "leaving", value: { addresses: [...message.addresses] } } } }];
    case "cut":
      return end(state, message.error);
    default:
      return unreachable(message);
  }
}

function onHello(state: StreamState, hello: Hello): StreamEffect[] {
  if (state.status !== "greeting") return end(state, invalid("a second hello"));
  if (hello.versionMin > protocolVersion || hello.versionMax < protocolVersion) {
    const theirs = `${hello.versionMin} to ${hello.versionMax}`;
    const text = `the client speaks version ${theirs} of the protocol, this node version ${protocolVersion}`;
    return end(state, new StarlingError("VERSION_MISMATCH", text));
  }
  const { clusterId } = state.limits;
  if (hello.clusterId !== "" && hello.clusterId !== clusterId) {
    const text = `the client wants cluster ${hello.clusterId}, this node belongs to ${clusterId}`;
    return end(state, new StarlingError("WRONG_CLUSTER", text));
  }
  const problem = problemOfSessionName(hello.session, hello.named);
  if (problem !== null) return end(state, invalid(problem));
  state.status = "opening";
  state.level = hello.level === AckLevel.PROCESSED ? AckLevel.PROCESSED : AckLevel.DURABLE;
  state.tracks = createSessionState(state.level === AckLevel.PROCESSED);
  return [{ kind: "open", session: hello.session, named: hello.named }];
}

function onSession(state: StreamState, stored: StoredSession): StreamEffect[] {
  if (stored.closed) {
    return end(state, closedSession(stored.session));
  }
  const { limits } = state;
  state.status = "open";
  state.session = stored.session;
  const welcome = {
    version: protocolVersion,
    clusterId: limits.clusterId,
    modelHash: limits.model.hash,
    session: stored.session,
    creditBatches: limits.creditBatches,
    creditBytes: limits.creditBytes,
    addresses: [...limits.addresses()],
    node: limits.node,
    lastNumber: 0n,
    settles: true,
  };
  return [
    { kind: "welcome", session: stored.session, opening: stored.opening },
    { kind: "send", message: { kind: { case: "welcome", value: welcome } } },
  ];
}

function onBatch(state: StreamState, batch: WireBatch): StreamEffect[] {
  const { limits, session } = state;
  if (state.status !== "open" || session === null) {
    return end(state, invalid(`batch ${batch.number} outside an open session`));
  }
  if (!Number.isSafeInteger(batch.number) || batch.number < 1) return end(state, invalid("a batch without a number"));
  if (state.lastNumber > 0 && batch.number > state.lastNumber && batch.predecessor !== state.lastNumber) {
    const text = `batch ${batch.number} follows ${batch.predecessor}, but ${state.lastNumber} came last`;
    return end(state, new StarlingError("GAP", text), batch.number);
  }
  state.usedBatches += 1;
  state.usedBytes += batch.bytes;
  // One batch is always allowed, however large.
  if (state.usedBatches > limits.creditBatches || (state.usedBatches > 1 && state.usedBytes > limits.creditBytes)) {
    const text = `the client sent more than its credits: ${limits.creditBatches} batches, ${limits.creditBytes} bytes`;
    return end(state, new StarlingError("BUSY", text), batch.number);
  }
  state.lastNumber = Math.max(state.lastNumber, batch.number);
  const { model, entityShards } = limits;
  const homeShard = shardOf("entity", "", session, entityShards);
  const read = limits.reader?.() ?? looseOf;
  const split = splitBatch(batch, { model, entityShards, channel: channelOf(session), homeShard, read });
  return onTracks(state, { kind: "batch", batch: split });
}

function onSettle(state: StreamState, through: number): StreamEffect[] {
  const { session, level } = state;
  if (state.status !== "open" || session === null || state.lastNumber > 0 || state.settling !== null) {
    return end(state, invalid("settle comes once, in an open session, before any batch"));
  }
  if (level !== AckLevel.PROCESSED) return end(state, invalid("a session of the level durable settles nothing"));
  if (!Number.isSafeInteger(through) || through < 1) return end(state, invalid("settle without a number"));
  state.settling = through;
  return [{ kind: "settle", channel: channelOf(session), through }];
}

function onSettled(state: StreamState, { watermarks, owing }: Settled): StreamEffect[] {
  const last = state.settling;
  if (last === null) return [];
  state.settling = null;
  const tokens = watermarks.map(wireToken);
  const ack = { level: AckLevel.PROCESSED, first: 0n, last: BigInt(last), tokens, obligations: owing };
  const effects: StreamEffect[] = [{ kind: "send", message: { kind: { case: "ack", value: ack } } }];
  askTurn(state, effects);
  return [...effects, ...endIfDone(state)];
}

function channelOf(session: SessionId): string {
  return `c:${session}`;
}

function onTracks(state: StreamState, message: SessionMessage): StreamEffect[] {
  const effects: StreamEffect[] = [];
  for (const effect of stepSession(state.tracks, message)) {
    switch (effect.kind) {
      case "opened":
        state.durable.waiting.push(effect.batch);
        if (state.tracks.awaitsProcessed) state.processed.waiting.push(effect.batch);
        effects.push(effect);
        break;
      case "failed":
        return [...effects, ...end(state, effect.error, effect.batch.number)];
      case "offer":
      case "rest":
        effects.push(effect);
        break;
      case "durable":
      case "processed":
        askTurn(state, effects);
        break;
      default:
        unreachable(effect);
    }
  }
  return effects;
}

function onTurn(state: StreamState): StreamEffect[] {
  state.turn = "none";
  const effects: StreamEffect[] = [];
  const { durable, processed, tracks, limits } = state;
  const waitsProcessed = processed.waiting.length - durable.waiting.length;
  const limit = tracks.awaitsProcessed ? Math.max(limits.unprocessedMax - waitsProcessed, 0) : Number.POSITIVE_INFINITY;
  const first = takeAcks(durable, { limit, withTokens: !tracks.awaitsProcessed });
  for (const batch of first.taken) returnCredit(state, batch);
  if (first.taken.length > 0) effects.push({ kind: "acked", level: AckLevel.DURABLE, batches: first.taken });
  const acks = first.acks;
  if (tracks.awaitsProcessed && state.settling === null) {
    const unacked = durable.waiting.length;
    const ready = processed.waiting.length - unacked;
    const second = takeAcks(processed, { limit: ready, withTokens: true });
    if (second.taken.length > 0) effects.push({ kind: "acked", level: AckLevel.PROCESSED, batches: second.taken });
    acks.push(...second.acks);
  }
  for (const ack of acks) effects.push({ kind: "send", message: { kind: { case: "ack", value: ack } } });
  if (canAck(durable) && processed.waiting.length - durable.waiting.length < limits.unprocessedMax) {
    askTurn(state, effects);
  }
  return [...effects, ...endIfDone(state)];
}

function askTurn(state: StreamState, effects: StreamEffect[]): void {
  if (state.turn === "asked") return;
  state.turn = "asked";
  effects.push({ kind: "turn" });
}

function returnCredit(state: StreamState, batch: OpenBatch): void {
  state.usedBatches -= 1;
  state.usedBytes -= batch.bytes;
}

function beginEnd(state: StreamState, status: "closing" | "finishing"): StreamEffect[] {
  state.status = status;
  return endIfDone(state);
}

function endIfDone(state: StreamState): StreamEffect[] {
  if (state.status !== "closing" && state.status !== "finishing") return [];
  if (state.durable.waiting.length > 0 || state.processed.waiting.length > 0 || state.settling !== null) return [];
  if (state.status === "finishing" || state.session === null) return end(state, null);
  state.status = "sealing";
  return [{ kind: "close-session", session: state.session }];
}

function end(state: StreamState, error: StarlingError | null, number = 0): StreamEffect[] {
  state.status = "ended";
  if (error === null) return [{ kind: "end" }];
  const value = { code: error.code, message: error.message, retryable: error.retryable, number: BigInt(number) };
  return [{ kind: "send", message: { kind: { case: "problem", value } } }, { kind: "end" }];
}

function problemOfSessionName(session: string, named: boolean): string | null {
  if (named && session === "") return "a named session without a name";
  if (session.length > nameMaxLength) return `a session's name is at most ${nameMaxLength} characters long`;
  if (isOdd(session) || /[\ud800-\udfff]/.test(session)) return "a session's name holds a control character";
  if (session.startsWith(keyPrefix)) return "session names beginning with key: are taken by idempotency keys";
  return named && session.startsWith(drawnPrefix) ? "session names beginning with drawn: are drawn by nodes" : null;
}

function invalid(message: string): StarlingError {
  return new StarlingError("INVALID_ARGUMENT", message);
}
