import type { Beat } from "./link-frame.ts";

/**
 * Heartbeats of one wire, both ways: what the peer sends must be heard, and what is sent must be echoed. So either end
 * notices a wire that carries bytes in one direction only. Whatever else is sent is a sign of life, too: no beat need go
 * beside it, unless it owes the peer an echo. Time in which this node itself stood still counts for nobody.
 */
export interface Pulse {
  /** Whether a beat is due. */
  due(nowMs: number): boolean;
  /** The next beat to send. */
  beat(nowMs: number): Beat;
  /** A beat of the peer. */
  heard(beat: Beat, nowMs: number): void;
  /** How long the last beat that came back was on its way, to the peer and back; null: none came back. */
  readonly roundTripMs: number | null;
  /** Anything else was heard of the peer. */
  alive(nowMs: number): void;
  /** Anything else was sent to the peer. */
  sent(nowMs: number): void;
  /** The peer has heard what was sent lately: beats may wait behind it. */
  answered(nowMs: number): void;
  /** This node stood still for so long. */
  forgive(lagMs: number, nowMs: number): void;
  /** Why the wire is broken; null: it is not. */
  problem(nowMs: number): string | null;
}

export interface PulseLimits {
  readonly everyMs: number;
  readonly silentMs: number;
}

/** A pulse that has just been heard. Beats unanswered count one interval later than silence: an echo waits for a beat. */
export function createPulse({ everyMs, silentMs }: PulseLimits, nowMs: number): Pulse {
  let heardMs = nowMs;
  let beatMs = Number.NEGATIVE_INFINITY;
  let sentMs = Number.NEGATIVE_INFINITY;
  let number = 0;
  let echo = 0;
  let echoed = 0;
  let echoHeardMs = nowMs;
  let roundTripMs: number | null = null;
  /** Beats that were not echoed yet: since when each waits. */
  const unechoed = new Map<number, number>();
  const oldest = (): number => unechoed.values().next().value ?? Number.POSITIVE_INFINITY;
  return {
    // Ticks come three times in an interval: one that is a little early is on time.
    due: (now) => now - (echo > echoed ? beatMs : Math.max(beatMs, sentMs)) >= everyMs * 0.9,
    beat: (now) => {
      beatMs = now;
      number += 1;
      echoed = echo;
      unechoed.set(number, now);
      return { number, echo, heldMs: echo === 0 ? null : now - echoHeardMs };
    },
    heard: (beat, now) => {
      heardMs = now;
      if (beat.number > echo) {
        echo = beat.number;
        echoHeardMs = now;
      }
      const leftMs = unechoed.get(beat.echo);
      if (leftMs !== undefined && beat.heldMs !== null) roundTripMs = Math.max(0, now - leftMs - beat.heldMs);
      for (const known of unechoed.keys()) {
        if (known > beat.echo) break;
        unechoed.delete(known);
      }
    },
    get roundTripMs() {
      return roundTripMs;
    },
    alive: (now) => {
      heardMs = now;
    },
    sent: (now) => {
      sentMs = now;
    },
    answered: (now) => {
      for (const known of unechoed.keys()) unechoed.set(known, now);
    },
    forgive: (lagMs, now) => {
      heardMs = Math.min(now, heardMs + lagMs);
      for (const [known, sinceMs] of unechoed) unechoed.set(known, Math.min(now, sinceMs + lagMs));
    },
    problem: (now) => {
      if (now - heardMs >= silentMs) return `nothing was heard for ${Math.round(now - heardMs)} ms`;
      if (now - oldest() >= silentMs + everyMs) return `nothing was answered for ${Math.round(now - oldest())} ms`;
      return null;
    },
  };
}
