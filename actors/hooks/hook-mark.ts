/** Where the runner says which hook the main thread is in, for the watchdog. All of it is a few plain stores. */
export interface HookMark {
  /** The synchronous part of a hook begins. */
  enter(hook: number, shard: number, seq: number): void;
  leave(): void;
  /** An asynchronous run goes on. Returns its place, to be given to {@link release}; -1 when there is none left. */
  hold(hook: number, shard: number, seq: number): number;
  release(place: number): void;
}

/** Tells nobody. */
export const noMark: HookMark = { enter: () => {}, leave: () => {}, hold: () => -1, release: () => {} };
