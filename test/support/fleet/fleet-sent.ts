/*
 * What a fleet was sent, and when: what its snapshots may tell, and what they have to, follows from that. Times are Unix ms, of
 * the machine on which the nodes run, too.
 */

/** A task of an entity that counts: 1, 2, 3, … in its attribute `n`. */
export interface SentTask {
  readonly sentAt: number;
  /** When it was known to be durable; null: not yet. */
  ackedAt: number | null;
  /** Of a bus. */
  readonly ride: Ride | null;
}

/** What a task of a bus says. */
export interface Ride {
  readonly line: string;
  readonly speed: number;
  readonly stop: string;
}

/** Of an entity that is deleted in the run: when that was asked for, and when it was known to be done. */
export interface Deletion {
  readonly askedAt: number;
  doneAt: number | null;
}

export interface FleetSent {
  /** When all that the load begins with was there. */
  readonly openedAt: number;
  /** By `type eid`; of an entity in the order of its numbers. */
  readonly tasks: ReadonlyMap<string, readonly SentTask[]>;
  /** Guests that go by themselves, by eid. */
  readonly passing: ReadonlySet<string>;
  /** Badges that no bus has any more, by eid. All others that were sent have one. */
  readonly dropped: ReadonlySet<string>;
  /** Lines, by eid. */
  readonly deletions: ReadonlyMap<string, Deletion>;
}

/** Lines that are there from the beginning, of which the doomed go one by one; and those that never are. */
export const lines = { lasting: named("line", 1, 6), doomed: named("line", 11, 8), ghosts: named("line", 31, 2) };
export const stops = named("stop", 1, 8);
export const causes = named("cause", 1, 40);
export const lones = named("lone", 1, 30);
export const buses = named("bus", 1, 40);
/** Guests that stay: half of them by the lease that their tasks bring, half by a hook's token. */
export const guests = { leased: named("guest", 1, 6), staying: named("guest", 11, 6) };

/** Badges that go from bus to bus, and are never without one; the buses that have them; and those that have others in turn. */
export const badges = { lasting: named("badge", 1, 3), carriers: buses.slice(0, 6), users: buses.slice(6, 10) };

/** Observations of a bus's tasks are a second apart and last for half of it. */
export const rideEveryMs = 1_000;

/** When the observation of a bus's `n`th task begins: the same for all buses. */
export function rideAt(beginsAt: number, n: number): number {
  return beginsAt + n * rideEveryMs;
}

/** The numbers that an entity may show in a run: what was durable before it began, and what was sent before it ended. */
export function boundsOf(tasks: readonly SentTask[], run: { readonly startedAt: number; readonly endedAt: number }) {
  const least = tasks.findLastIndex(({ ackedAt }) => ackedAt !== null && ackedAt < run.startedAt) + 1;
  const most = tasks.findLastIndex(({ sentAt }) => sentAt <= run.endedAt) + 1;
  return { least, most };
}

function named(type: string, first: number, count: number): string[] {
  return Array.from({ length: count }, (_, index) => `${type}-${first + index}`);
}
