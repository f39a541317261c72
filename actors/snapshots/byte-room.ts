/** Room for so many bytes, which those who work with much take before. */
export interface ByteRoom {
  /** Runs when there is room for the bytes, or when nobody else is there: first come, first served. */
  with<T>(bytes: number, run: () => Promise<T>): Promise<T>;
}

/** Empty room. */
export function createByteRoom(bytesMax: number): ByteRoom {
  const waiting: { readonly bytes: number; readonly enter: () => void }[] = [];
  let taken = 0;
  let inside = 0;
  const letIn = (): void => {
    for (
      let next = waiting[0];
      next !== undefined && (inside === 0 || taken + next.bytes <= bytesMax);
      next = waiting[0]
    ) {
      waiting.shift();
      inside++;
      taken += next.bytes;
      next.enter();
    }
  };
  return {
    with: async (bytes, run) => {
      await new Promise<void>((enter) => {
        waiting.push({ bytes, enter });
        letIn();
      });
      try {
        return await run();
      } finally {
        inside--;
        taken -= bytes;
        letIn();
      }
    },
  };
}
