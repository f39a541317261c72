import type { Clock } from "../proto/clock.ts";

export interface AilmentOptions {
  readonly clock: Clock;
  /** Called with `ailing` when the trouble has lasted, and with `well` when it has been over for a while. */
  readonly onChange: (state: "ailing" | "well") => void;
  /** How long trouble lasts before it counts. */
  readonly ailingAfterMs?: number;
  /** How long everything must succeed before it is over. */
  readonly wellAfterMs?: number;
}

/** Whether a node can work, told slowly: what passes within seconds moves no shards (R23). */
export interface Ailment {
  readonly state: "ailing" | "well";
  report(now: "trouble" | "fine"): void;
  /** From now on nothing is told, whatever is reported: what is cut off as a node ends fails, too. */
  close(): void;
}

/** A node that is well. */
export function createAilment(options: AilmentOptions): Ailment {
  const { clock, onChange, ailingAfterMs = 2000, wellAfterMs = 5000 } = options;
  let state: Ailment["state"] = "well";
  let reported: "trouble" | "fine" = "fine";
  let status: "open" | "closed" = "open";
  let cancel = (): void => {};
  const turnAfter = (ms: number, next: Ailment["state"]): void => {
    cancel();
    cancel = clock.after(ms, () => {
      state = next;
      onChange(next);
    });
  };
  return {
    get state() {
      return state;
    },
    report: (now) => {
      if (now === reported || status === "closed") return;
      reported = now;
      if (now === "trouble" && state === "well") turnAfter(ailingAfterMs, "ailing");
      else if (now === "fine" && state === "ailing") turnAfter(wellAfterMs, "well");
      // It was over before it counted, or began again before it was over.
      else cancel();
    },
    close: () => {
      status = "closed";
      cancel();
    },
  };
}
