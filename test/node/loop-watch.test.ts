import { describe, expect, it, vi } from "vitest";
import { noMark } from "../../actors/hooks/hook-mark.ts";
import { type DebuggerSigns, guardOf, startLoopWatch } from "../../node/loop-watch.ts";
import type { Clock } from "../../proto/clock.ts";
import { createManualClock } from "../support/manual-clock.ts";

const none: DebuggerSigns = { inspectorUrl: undefined, execArgv: [] };
const open: DebuggerSigns = { ...none, inspectorUrl: "ws://127.0.0.1:9229/0" };

describe("a process whose event loop does not yield", () => {
  it.each([
    ["ends", none],
    ["ends", { ...none, execArgv: ["--max-semi-space-size=32", "--inspect-port=0", "--inspector"] }],
    ["warns", open],
    ["warns", { ...none, execArgv: ["--inspect"] }],
    ["warns", { ...none, execArgv: ["--enable-source-maps", "--inspect-brk=0.0.0.0:9229"] }],
    ["warns", { ...none, execArgv: ["--inspect-wait"] }],
  ] as const)("%s with %j", (guard, signs) => {
    expect(guardOf(signs)).toBe(guard);
  });
});

/** A clock that can stand still for the event loop, as at a breakpoint, while time goes on. */
function createHeldClock(): { clock: Clock; advance(ms: number): Promise<void>; hold(ms: number): void } {
  const manual = createManualClock();
  let heldMs = 0;
  const clock = { ...manual, now: () => manual.now() + heldMs };
  const hold = (ms: number): void => {
    heldMs += ms;
  };
  return { clock, advance: manual.advance, hold };
}

function startWatch(first: DebuggerSigns) {
  const { clock, advance, hold } = createHeldClock();
  const log = { warn: vi.fn() };
  const close = vi.fn(async () => {});
  const told: unknown[] = [];
  const tell = (one: unknown) => void told.push(one);
  const start = vi.fn(() => ({ mark: noMark, know: tell, onCode: tell, close }));
  let signs = first;
  const watch = startLoopWatch({ clock, log, signs: () => signs, start });
  const attach = (): void => {
    signs = open;
  };
  return { watch, advance, hold, log, close, start, attach, told };
}

describe("the loop's watch", () => {
  it("starts the watchdog, which alone judges, and ends it with the node", async () => {
    const { watch, advance, hold, log, close, start } = startWatch(none);
    hold(20_000);
    await advance(1_000);
    expect(start).toHaveBeenCalledOnce();
    expect(log.warn).not.toHaveBeenCalled();
    await watch.close();
    expect(close).toHaveBeenCalledOnce();
  });

  it("starts none under a debugger, and tells of a delay afterwards", async () => {
    const { watch, advance, hold, log, start } = startWatch(open);
    await advance(20_000);
    expect(start).not.toHaveBeenCalled();
    expect(log.warn).not.toHaveBeenCalled();
    hold(15_000);
    await advance(500);
    expect(log.warn.mock.calls).toEqual([
      [{ heldMs: 15_000 }, "the event loop did not yield; the process goes on, for a debugger"],
    ]);
    await watch.close();
  });

  it("tells the watchdog whose code runs outside of hooks, and where", async () => {
    const { watch, told } = startWatch(none);
    watch.onCode({ module: "flights", file: "/etc/starling/flights.ts", where: "load" });
    watch.onCode(null);
    watch.know(["flights/on_new_attr/route.delay/spin"]);
    expect(told).toEqual([
      "module flights, file /etc/starling/flights.ts, where: load",
      null,
      ["flights/on_new_attr/route.delay/spin"],
    ]);
    await watch.close();
  });

  it("ends the watchdog when a debugger comes later", async () => {
    const { watch, advance, hold, log, close, attach } = startWatch(none);
    await advance(1_000);
    attach();
    await advance(500);
    expect(close).toHaveBeenCalledOnce();
    hold(60_000);
    await advance(500);
    expect(log.warn).toHaveBeenCalledTimes(2);
    await watch.close();
    expect(close).toHaveBeenCalledOnce();
  });
});
