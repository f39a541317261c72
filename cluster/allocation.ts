import type { ShardId } from "../proto/ids.ts";

/** A node that may own shards, known by its name: a restart changes its id, not its place (R23). */
export interface Member {
  readonly name: string;
  /** Its share of the shards, relative to the others'; 0: none but what is pinned to it. */
  readonly weight: number;
}

/** The owner of each shard, by name; null: nobody yet. */
export type Owners = ReadonlyMap<ShardId, string | null>;

/**
 * Who is to own each shard of a group. Every node gets its weight's share, at most one shard more or less, by as few moves as
 * that allows; a pinned shard goes where it is pinned, unless that node is not there. Pure: every node that sees the same
 * members, pins and owners comes to the same answer. Without anybody of positive weight only pinned shards have an owner.
 *
 * How many a node is to have is decided first. A shard kept is a move saved, and a node saves one with each shard up to what
 * it owns today, none beyond: so room is given to those first who would have to give away, and then to who has least of
 * its share. No other counts within the bounds need fewer moves.
 */
export function allocation(
  members: readonly Member[],
  pins: ReadonlyMap<ShardId, string>,
  current: Owners,
): Map<ShardId, string | null> {
  const places = new Map([...members].sort(byName).map((member) => [member.name, createPlace(member)]));
  const next = new Map<ShardId, string | null>();
  const free: ShardId[] = [];
  for (const [shard, owner] of [...current].sort(([a], [b]) => a - b)) {
    const pinned = places.get(pins.get(shard) ?? "");
    next.set(shard, pinned?.name ?? null);
    if (pinned !== undefined) pinned.pinned++;
    else (places.get(owner ?? "")?.owned ?? free).push(shard);
  }
  const all = [...places.values()];
  giveRoom(all, current.size);
  for (const place of all) {
    const kept = place.owned.splice(0, place.room - place.pinned);
    for (const shard of kept) next.set(shard, place.name);
    place.room -= place.pinned + kept.length;
    free.push(...place.owned);
  }
  free.sort((a, b) => a - b);
  for (const { name, room } of all) for (const shard of free.splice(0, room)) next.set(shard, name);
  return next;
}

interface Place extends Member {
  /** Unpinned shards that it owns today. */
  readonly owned: ShardId[];
  /** Shards that are pinned to it. */
  pinned: number;
  /** How many shards it is to own, pinned ones included; then how many it has still to get. */
  room: number;
}

function byName(a: Member, b: Member): number {
  return a.name < b.name ? -1 : 1;
}

function createPlace({ name, weight }: Member): Place {
  return { name, weight, owned: [], pinned: 0, room: 0 };
}

function giveRoom(places: readonly Place[], shards: number): void {
  const shares = sharesOf(places, shards);
  const missing = (place: Place): number => (shares.get(place) ?? 0) - place.room;
  const keeps = ({ owned, pinned, room }: Place): boolean => owned.length > room - pinned;
  for (const place of places) place.room = Math.max(place.pinned, Math.ceil((shares.get(place) ?? 0) - 1 - tolerance));
  let left = shards - places.reduce((sum, { room }) => sum + room, 0);
  for (; left > 0; left--) {
    const open = places.filter((place) => place.weight > 0 && missing(place) >= -tolerance);
    const [first] = open.sort((a, b) => Number(keeps(b)) - Number(keeps(a)) || missing(b) - missing(a));
    if (first === undefined) return;
    first.room++;
  }
}

/** Shares are quotients: what should be a whole number may lie beside it. */
const tolerance = 1e-9;

/** What each is to have: in proportion to its weight, and more only if more is pinned to it. */
function sharesOf(places: readonly Place[], shards: number): Map<Place, number> {
  const shares = new Map<Place, number>(places.map((place) => [place, place.pinned]));
  let open = places.filter(({ weight }) => weight > 0);
  for (;;) {
    const fixed = places.filter((place) => !open.includes(place)).reduce((sum, { pinned }) => sum + pinned, 0);
    const each = (shards - fixed) / open.reduce((sum, { weight }) => sum + weight, 0);
    const within = open.filter(({ weight, pinned }) => pinned <= each * weight);
    if (within.length === open.length) {
      for (const place of open) shares.set(place, each * place.weight);
      return shares;
    }
    open = within;
  }
}
