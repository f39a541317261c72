/** A turn that at most one of those who want it has. */
export interface Turn {
  /** Whether `who` has the turn now; if not, `wake` is called when it may be tried again. */
  take(who: object, wake: () => void): boolean;
  /** Gives the turn back; nothing if `who` has it not. */
  pass(who: object): void;
}

export function createTurn(): Turn {
  let holder: object | null = null;
  const waiting = new Map<object, () => void>();
  return {
    take: (who, wake) => {
      holder ??= who;
      if (holder === who) return waiting.delete(who) || true;
      waiting.set(who, wake);
      return false;
    },
    pass: (who) => {
      if (holder !== who) return;
      holder = null;
      for (const wake of waiting.values()) wake();
    },
  };
}
