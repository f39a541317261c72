import { StarlingError } from "../proto/starling-error.ts";
import type { LocalEngine } from "./local-engine.ts";

/**
 * An owner that could not read for a while what it owns answers nothing from memory (R24), nor what it was asked before, as a node
 * that stood still meanwhile would.
 */
export function withFreshReads<Reads extends Pick<LocalEngine, "get" | "reply">>(
  local: Reads,
  isFresh: () => boolean,
): Reads {
  const whileFresh = async <T>(read: () => Promise<T>): Promise<T> => {
    if (!isFresh()) throw stale();
    const answer = await read();
    if (!isFresh()) throw stale();
    return answer;
  };
  return {
    ...local,
    get: (type, eid, atLeast) => whileFresh(() => local.get(type, eid, atLeast)),
    reply: (shard, seq, deadlineMs) => whileFresh(() => local.reply(shard, seq, deadlineMs)),
  };
}

function stale(): StarlingError {
  return new StarlingError("UNAVAILABLE", "this node has not read for a while which shards it owns");
}
