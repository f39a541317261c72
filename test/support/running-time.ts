/** The time in which this process ran: what it stood still for longer than a moment, as machines do under load, is left out. */
export interface RunningTime {
  /** Milliseconds. */
  now(): number;
  close(): void;
}

const everyMs = 10;
const momentMs = 30;

/** Links forgive a node that stands still in the same way: bounds on what they do are bounds on this time. */
export function measureRunningTime(): RunningTime {
  let stoodMs = 0;
  let lastMs = performance.now();
  const look = (): void => {
    const nowMs = performance.now();
    if (nowMs - lastMs > everyMs + momentMs) stoodMs += nowMs - lastMs - everyMs;
    lastMs = nowMs;
  };
  const timer = setInterval(look, everyMs);
  return {
    now: () => {
      look();
      return lastMs - stoodMs;
    },
    close: () => clearInterval(timer),
  };
}
