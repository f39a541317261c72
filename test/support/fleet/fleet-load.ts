import { setTimeout } from "node:timers/promises";
import { type Client, connect } from "../../../proto/client.ts";
import type { ClientDatapoint } from "../../../proto/client-batch.ts";
import type { ReachOptions } from "../../../proto/client-dialler.ts";
import { toStarlingError } from "../../../proto/starling-error.ts";
import { createRandom, type Random } from "../random.ts";
import type { Deletion, FleetSent, Ride, SentTask } from "./fleet-sent.ts";
import * as fleet from "./fleet-sent.ts";

/** Sends a fleet's tasks until it is told to finish: numbers that count, links that change, lines that go, guests that pass. */
export interface FleetLoad {
  readonly sent: FleetSent;
  /** Of observations; see `rideAt`. */
  readonly beginsAt: number;
  readonly count: number;
  /** What `send` told its user. Empty when all is well. */
  readonly errors: readonly string[];
  /** Sends nothing more, and waits until everything is acknowledged or has failed. */
  finish(): Promise<void>;
}

export interface FleetLoadOptions {
  readonly addresses: readonly string[];
  readonly seed: number;
  readonly reach?: ReachOptions;
}

const everyMs = 200;
/** Observations begin so long ago that none is ever ahead of its snapshot. */
const backMs = 3_600_000;
const inFlightMax = 8;
/** Rounds between two deletions. */
const doomEvery = 4;
const deleteWithinMs = 90_000;

/** Starts it; resolves when everything is there that the run begins with. */
export async function startFleetLoad({ addresses, seed, reach = {} }: FleetLoadOptions): Promise<FleetLoad> {
  const stop = new AbortController();
  const yard = createYard();
  const errors: string[] = [];
  const connected = (level: "durable" | "processed", at: number) =>
    connect({ ...reach, addresses: [...addresses.slice(at), ...addresses.slice(0, at)], level, callMs: 10_000 });
  const [counting, linking, pinning] = await Promise.all([
    connected("durable", 1),
    connected("processed", 2),
    connected("processed", 0),
  ]);
  await yard.open(linking);
  const running = [
    count(counting, yard, createRandom(seed * 16 + 8), stop.signal),
    link(linking, yard, createRandom(seed * 16 + 9), stop.signal),
    pin(pinning, yard, createRandom(seed * 16 + 11), stop.signal),
  ].map((one) =>
    one.catch((error: unknown) => {
      const { code, message } = toStarlingError(error);
      errors.push(`fleet: ${code}: ${message}`);
    }),
  );
  return {
    ...{ sent: yard.sent, beginsAt: yard.beginsAt, errors },
    get count() {
      return yard.count;
    },
    finish: async () => {
      stop.abort();
      await Promise.all(running);
      await Promise.all([counting.close(), linking.close(), pinning.close()]); // of a client that is closed nothing is left to do
    },
  };
}

/** Causes and lones, several batches at once. */
async function count(client: Client, yard: Yard, random: Random, signal: AbortSignal): Promise<void> {
  const inFlight = new Set<Promise<void>>();
  while (!signal.aborted) {
    const batch = [
      ...random
        .shuffled(fleet.causes)
        .slice(0, 10)
        .map((eid) => yard.cause(eid)),
      ...random
        .shuffled(fleet.lones)
        .slice(0, 4)
        .map((eid) => yard.lone(eid)),
    ];
    const one = yard.send(client, batch).then(() => void inFlight.delete(one));
    inFlight.add(one);
    one.catch(() => {}); // raised by the wait below
    if (inFlight.size >= inFlightMax) await Promise.race(inFlight);
    await setTimeout(everyMs);
  }
  await Promise.all(inFlight);
}

/** Buses and guests, one batch after another: what comes later knows that what was before it is processed. */
async function link(client: Client, yard: Yard, random: Random, signal: AbortSignal): Promise<void> {
  const doomed = [...fleet.lines.doomed];
  let passing: string | null = null;
  for (let round = 1; !signal.aborted; round++) {
    const open = [...fleet.lines.lasting, ...fleet.lines.ghosts, ...doomed];
    const rides = random
      .shuffled(fleet.buses)
      .slice(0, 8)
      .map((eid) => yard.ride(eid, random, open));
    const stay = random.shuffled([...fleet.guests.leased, ...fleet.guests.staying]).slice(0, 2);
    const again: Task[] = passing === null ? [] : [yard.passingGuest(passing)];
    await yard.send(client, [...rides, ...stay.map((eid) => yard.stayingGuest(eid)), ...again]);
    // A guest that a bus links to, and that comes once more when the link is there: then it goes after the link came.
    passing = `guest-${100 + round}`;
    const [bus = ""] = random.shuffled(fleet.buses);
    await yard.send(client, [yard.passingGuest(passing), yard.invite(bus, passing)]);
    if (round % doomEvery === 0) {
      const line = doomed.shift();
      if (line !== undefined) await yard.remove(client, line);
    }
    await setTimeout(everyMs);
  }
  if (passing !== null) await yard.send(client, [yard.passingGuest(passing)]);
}

/**
 * Badges, one step after another. A link is there before its badge, and before another one is taken away: so those that last are
 * never without one.
 */
async function pin(client: Client, yard: Yard, random: Random, signal: AbortSignal): Promise<void> {
  const { lasting, carriers, users } = fleet.badges;
  const places = new Map(lasting.map((eid, index) => [eid, carriers[index] ?? ""]));
  const used = new Map<string, string>();
  for (const [eid, bus] of places) await yard.send(client, [yard.give(bus, eid)]);
  for (let round = 1; !signal.aborted; round++) {
    const [eid = ""] = random.shuffled(lasting);
    await yard.send(client, [yard.badge(eid)]);
    const [free = ""] = random.shuffled(carriers.filter((bus) => ![...places.values()].includes(bus)));
    await yard.send(client, [yard.give(free, eid)]);
    await yard.send(client, [yard.give(places.get(eid) ?? "", "badge-0")]);
    places.set(eid, free);
    const fresh = `badge-${100 + round}`;
    const [user = ""] = random.shuffled(users);
    await yard.send(client, [yard.give(user, fresh)]);
    await yard.send(client, [yard.badge(fresh)]);
    yard.drop(used.get(user));
    used.set(user, fresh);
    await setTimeout(everyMs);
  }
}

/** Datapoints of one entity in one batch, and what stands of them in the book. */
interface Task {
  readonly datapoints: readonly ClientDatapoint[];
  readonly sent: SentTask | null;
}

type Yard = ReturnType<typeof createYard>;

/** Makes tasks, and keeps the book of what was sent. */
function createYard() {
  const beginsAt = Date.now() - backMs;
  const tasks = new Map<string, SentTask[]>();
  const passing = new Set<string>();
  const deletions = new Map<string, Deletion>();
  const dropped = new Set<string>();
  let datapoints = 0;
  const next = (
    type: string,
    eid: string,
    rest: readonly Omit<ClientDatapoint, "type" | "eid">[],
    ride?: Ride,
  ): Task => {
    const key = `${type} ${eid}`;
    const before = tasks.get(key) ?? [];
    tasks.set(key, before);
    const sent: SentTask = { sentAt: Date.now(), ackedAt: null, ride: ride ?? null };
    before.push(sent);
    return { sent, datapoints: [{ attr: "n", v: before.length }, ...rest].map((one) => ({ type, eid, ...one })) };
  };
  const numberOf = (type: string, eid: string): number => (tasks.get(`${type} ${eid}`)?.length ?? 0) + 1;
  const named = (type: string, eid: string): Task => {
    return { sent: null, datapoints: [{ type, eid, attr: "name", v: eid }] };
  };
  const yard = {
    ...{ beginsAt, sent: { tasks, passing, deletions, dropped, openedAt: Number.POSITIVE_INFINITY } },
    get count() {
      return datapoints;
    },
    send: async (client: Client, batch: readonly Task[]): Promise<void> => {
      const all = batch.flatMap((task) => task.datapoints);
      datapoints += all.length;
      const { accepted, rejections } = await client.send(all);
      if (accepted !== all.length) throw new Error(`of a fleet's batch: ${JSON.stringify(rejections.slice(0, 3))}`);
      for (const { sent } of batch) if (sent !== null) sent.ackedAt = Date.now();
    },
    cause: (eid: string): Task => next("cause", eid, []),
    lone: (eid: string): Task => {
      const [, owner] = eid.split("-");
      const at = fleet.rideAt(beginsAt, numberOf("lone", eid));
      const v = { time: [at], value: [numberOf("lone", eid)], owner: [Number(owner)] };
      return next("lone", eid, [{ attr: "chunks", v, t1: at, t2: at + 1 }]);
    },
    ride: (eid: string, random: Random, open: readonly string[]): Task => {
      const [line = "", stop = ""] = [random.shuffled(open)[0], random.shuffled(fleet.stops)[0]];
      const ride = { line, stop, speed: random.between(1, 99) };
      const at = fleet.rideAt(beginsAt, numberOf("bus", eid));
      const rest = [
        { attr: "line", v: { eid: line } },
        { attr: "speed", v: ride.speed },
        { attr: "stop", v: { eid: stop }, t1: at, t2: at + fleet.rideEveryMs / 2 },
      ];
      return next("bus", eid, rest, ride);
    },
    stayingGuest: (eid: string): Task => {
      return next("guest", eid, [{ attr: fleet.guests.leased.includes(eid) ? "lease" : "stay", v: 1 }]);
    },
    passingGuest: (eid: string): Task => {
      passing.add(eid);
      return { sent: null, datapoints: [{ type: "guest", eid, attr: "n", v: 1 }] };
    },
    invite: (bus: string, guest: string): Task => {
      return { sent: null, datapoints: [{ type: "bus", eid: bus, attr: "guest", v: { eid: guest } }] };
    },
    badge: (eid: string): Task => next("badge", eid, []),
    give: (bus: string, badge: string): Task => {
      return { sent: null, datapoints: [{ type: "bus", eid: bus, attr: "badge", v: { eid: badge } }] };
    },
    drop: (badge: string | undefined): void => {
      if (badge !== undefined) dropped.add(badge);
    },
    remove: async (client: Client, eid: string): Promise<void> => {
      const deletion: Deletion = { askedAt: Date.now(), doneAt: null };
      deletions.set(eid, deletion);
      await untilDeleted(client, eid);
      deletion.doneAt = Date.now();
    },
    open: async (client: Client): Promise<void> => {
      const known = [...fleet.lines.lasting, ...fleet.lines.doomed].map((eid) => named("line", eid));
      const counting = [...fleet.causes.map((eid) => yard.cause(eid)), ...fleet.lones.map((eid) => yard.lone(eid))];
      const random = createRandom(1);
      const rides = fleet.buses.map((eid) => yard.ride(eid, random, fleet.lines.lasting));
      await yard.send(client, [...known, ...fleet.stops.map((eid) => named("stop", eid)), ...counting, ...rides]);
      yard.sent.openedAt = Date.now();
    },
  };
  return yard;
}

/** Again and again: nobody sends for it any more, so doing it twice is doing it once. */
async function untilDeleted(client: Client, eid: string): Promise<void> {
  const untilMs = performance.now() + deleteWithinMs;
  for (;;) {
    try {
      await client.entities.delete({ type: "line", eid });
      return;
    } catch (error) {
      const { code, retryable } = toStarlingError(error);
      if (code === "NOT_FOUND") return;
      if (!retryable || performance.now() > untilMs) throw error;
      await setTimeout(everyMs);
    }
  }
}
