import { readEid } from "../modules/eid.ts";
import type { Model } from "../modules/model.ts";
import { StarlingError } from "../proto/starling-error.ts";
import type { PartTask } from "./part.ts";

/**
 * What one entity's links mean to another: derived tasks carry it from shard to shard.
 *
 *   refer     the source links to this entity over `attr`: from now on, or (`span`) while it was observed
 *   unrefer   it no longer does, and never did
 *   unlink    the target, to which this entity may link over `attr`, was deleted
 */
export type LinkChange =
  | {
      readonly kind: "refer";
      readonly attr: string;
      readonly type: string;
      readonly eid: string;
      readonly span: Span | null;
    }
  | { readonly kind: "unrefer" | "unlink"; readonly attr: string; readonly type: string; readonly eid: string };

/** Whole Unix milliseconds, both included. */
export interface Span {
  readonly from: number;
  readonly to: number;
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
  const { kind, attr, type, eid } = change;
  const span = change.kind === "refer" && change.span !== null ? [change.span.from, change.span.to] : [];
  return JSON.stringify([kind, attr, type, eid, ...span]);
}

/** The opposite of {@link writeLinkChange}. Raises MODEL_CHANGED for what a newer version wrote. */
export function readLinkChange(text: string): LinkChange {
  const [kind, attr, type, eid, from, to] = JSON.parse(text) as [string, string, string, string, number?, number?];
  switch (kind) {
    case "refer":
      return { kind, attr, type, eid, span: from === undefined || to === undefined ? null : { from, to } };
    case "unrefer":
    case "unlink":
      return { kind, attr, type, eid };
    default:
      throw new StarlingError("MODEL_CHANGED", `a change of links of an unknown kind: ${kind}`);
  }
}
