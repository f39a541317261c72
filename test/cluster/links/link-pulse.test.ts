import { describe, expect, it } from "vitest";
import { createPulse } from "../../../cluster/links/link-pulse.ts";

const limits = { everyMs: 300, silentMs: 1_200 };

describe("a pulse", () => {
  it("is broken when nothing is heard for its time, not before", () => {
    const pulse = createPulse(limits, 0);
    expect(pulse.problem(1_199)).toBe(null);
    expect(pulse.problem(1_200)).toMatch("nothing was heard for 1200 ms");
  });

  it("is broken when the peer is heard but hears nothing", () => {
    const pulse = createPulse(limits, 0);
    for (let ms = 0; ms <= 1_500; ms += 300) {
      pulse.beat(ms);
      pulse.heard({ number: ms / 300 + 1, echo: 0, heldMs: null }, ms);
      expect(pulse.problem(ms) === null).toBe(ms < 1_500);
    }
  });

  it("goes on for as long as both are heard", () => {
    const pulse = createPulse(limits, 0);
    for (let ms = 0; ms <= 60_000; ms += 300) {
      const { number } = pulse.beat(ms);
      pulse.heard({ number, echo: number, heldMs: 0 }, ms + 50);
      expect(pulse.problem(ms + 299)).toBe(null);
    }
  });

  it("echoes the last number heard", () => {
    const pulse = createPulse(limits, 0);
    pulse.heard({ number: 7, echo: 0, heldMs: null }, 10);
    expect(pulse.beat(20)).toEqual({ number: 1, echo: 7, heldMs: 10 });
  });

  it("needs no beat beside what else is sent, but for an echo that it owes", () => {
    const pulse = createPulse(limits, 0);
    expect(pulse.due(0)).toBe(true);
    pulse.beat(0);
    expect([pulse.due(200), pulse.due(300)]).toEqual([false, true]);
    pulse.sent(290);
    expect([pulse.due(300), pulse.due(590)]).toEqual([false, true]);
    pulse.sent(580);
    pulse.heard({ number: 1, echo: 1, heldMs: 0 }, 585);
    expect(pulse.due(590)).toBe(true);
    expect(pulse.beat(590)).toMatchObject({ echo: 1 });
    pulse.sent(880);
    expect(pulse.due(890)).toBe(false);
  });

  it("knows how long a beat was on its way, without the time in which the peer had it", () => {
    const [one, other] = [createPulse(limits, 0), createPulse(limits, 0)];
    expect(one.roundTripMs).toBe(null);
    other.heard(one.beat(0), 7);
    one.heard(other.beat(207), 216);
    expect(one.roundTripMs).toBe(16);
    one.heard(other.beat(300), 400);
    expect(one.roundTripMs).toBe(16);
    one.heard({ number: 9, echo: one.beat(500).number, heldMs: null }, 600);
    expect(one.roundTripMs).toBe(16);
  });

  it("gives the peer the time in which this node stood still, but never more than passed", () => {
    const pulse = createPulse(limits, 0);
    pulse.beat(0);
    pulse.forgive(5_000, 5_100);
    expect(pulse.problem(5_100)).toBe(null);
    pulse.forgive(5_000, 5_200);
    expect(pulse.problem(6_399)).toBe(null);
    expect(pulse.problem(6_400)).toMatch("nothing was heard");
  });
});
