import { readEid } from "../../modules/eid.ts";
import { StarlingError, toStarlingError } from "../../proto/starling-error.ts";
import { readTask } from "../log/line.ts";
import type { HeldEntry, StoredObligation } from "../store/store.ts";
import { createEntry } from "./entry.ts";
import type { Lane } from "./lane.ts";
import { letterOfMisfit } from "./letter.ts";
import { addOwed, createObligation, type Obligation, readPlace } from "./obligation.ts";
import { taskFrom } from "./part.ts";
import { deliver } from "./processing.ts";
import { entityOf, type Shard } from "./shard.ts";

/** By type and eid, joined by a tab: the first entry that an entity owes from the log. */
export type Debts = Map<string, { readonly from: number; readonly obligation: Obligation | null }>;

/** Takes what entities owe over from its rows: held entries go on where their rows say. */
export function restoreObligations(lane: Lane, shard: Shard): Debts {
  const debts: Debts = new Map();
  for (const stored of shard.owed) {
    lane.touched.add(shard);
    const obligation = restore(lane, shard, stored);
    const { type, eid, firstWaiting } = stored;
    if (firstWaiting !== null) debts.set(`${type}\t${eid}`, { from: firstWaiting, obligation });
    // Without its entity the row ends; what waits in the log becomes dead letters.
    if (obligation === null) shard.misfits.push({ ...stored, held: null, firstWaiting: null });
  }
  return debts;
}

/** Null: the model of now knows no such entity. */
function restore(lane: Lane, shard: Shard, stored: StoredObligation): Obligation | null {
  const spec = lane.world.model.entities.get(stored.type);
  const { held } = stored;
  try {
    if (spec === undefined)
      throw new StarlingError("UNKNOWN_TYPE", `entity type ${stored.type} is no longer in the model`);
    const eid = readEid(spec, stored.eid);
    const obligation = createObligation(shard, entityOf(shard, spec, stored.eid, eid));
    if (held !== null) restoreHeld(lane, shard, obligation, held);
    return obligation;
  } catch (error) {
    const { message } = toStarlingError(error);
    if (held !== null) letterOfMisfit(shard, held.seq, held.at, stored, new StarlingError("MODEL_CHANGED", message));
    return null;
  }
}

function restoreHeld(lane: Lane, shard: Shard, obligation: Obligation, held: HeldEntry): void {
  const { task } = readTask(held.task.split("\n"), 0, lane.world.model);
  const { spec, eid } = obligation.entity;
  if (task instanceof StarlingError) return letterOfMisfit(shard, held.seq, held.at, { type: spec.id, eid }, task);
  const { cursor, cause } = readPlace(held);
  const entry = createEntry(taskFrom(task, cause), held.seq, held.lastSeq, held.at, true);
  obligation.held = { entry, task: held.task, cause, cursor, hook: held.hook };
  addOwed(lane, shard, obligation, entry);
  deliver(lane, shard, entry);
  lane.world.counters.add("replayed_tasks");
}
