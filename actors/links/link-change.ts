import { readEid } from "../../modules/eid.ts";
import type { Model } from "../../modules/model.ts";
import { type Seq, toSeq } from "../../proto/ids.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import type { PartTask } from "../lane/part.ts";

/**
 * What one entity's links mean to another, as a task carries it from shard to shard.
 *
 *   unlink    the target, to which this entity may link over `attr`, was deleted
 *   told      nothing: what the version before told targets of links to them
 *
 * Or what the collector asks of an entity, by itself: `expire`, to end its life if that is over (`lifetime.ts`).
 */
export type LinkChange = Unlink | Expire | { readonly kind: "told" };

export interface Expire {
  readonly kind: "expire";
  /** Of a weak entity: nothing links to it, and its life is over unless it changed after this seq; null: tokens decide. */
  readonly since: Seq | null;
}

export interface Unlink {
  readonly kind: "unlink";
  readonly attr: string;
  /** The target. */
  readonly type: string;
  readonly eid: string;
  /** Links that arrived later stay (Unix ms); null: none do. */
  readonly before: number | null;
}

/** The task that tells an entity; null: the model knows no such type. */
export function linkTask(model: Model, type: string, eid: string, change: LinkChange): PartTask | null {
  const entity = model.entities.get(type);
  if (entity === undefined) return null;
  const eidValue = readEid(entity, eid);
  return { entity, eid, eidValue, datapoints: [], ttlTokens: null, delete: false, cause: null, link: change };
}

/** As JSON text, for a line of the log. */
export function writeLinkChange(change: LinkChange): string {
  if (change.kind === "told") return '["refer"]';
  if (change.kind === "expire") return JSON.stringify(change.since === null ? ["expire"] : ["expire", change.since]);
  const { kind, attr, type, eid, before } = change;
  return JSON.stringify(before === null ? [kind, attr, type, eid] : [kind, attr, type, eid, before]);
}

/** The opposite of {@link writeLinkChange}. Raises MODEL_CHANGED for what a newer version wrote. */
export function readLinkChange(text: string): LinkChange {
  const [kind, ...rest] = JSON.parse(text) as [string, ...unknown[]];
  switch (kind) {
    case "unlink": {
      const [attr, type, eid, before = null] = rest as [string, string, string, number?];
      return { kind, attr, type, eid, before };
    }
    case "expire": {
      const [since] = rest as [number?];
      return { kind, since: since === undefined ? null : toSeq(since) };
    }
    case "refer":
    case "unrefer":
      return { kind: "told" };
    default:
      throw new StarlingError("MODEL_CHANGED", `a change of links of an unknown kind: ${kind}`);
  }
}
