import type { Span } from "./link-change.ts";
import type { LinkRow } from "./store/store.ts";

/** What an entity has yet to write of its links, in both directions; later changes of a row replace or extend earlier ones. */
export interface LinkRows {
  /** All that stood before is gone. */
  cleared: boolean;
  readonly byKey: Map<string, LinkRow>;
}

/** One end of a link as it is noted at one of its entities. */
export interface LinkEnd {
  /** True: the other entity links to this one. */
  readonly reverse: boolean;
  /** The source's attribute. */
  readonly attr: string;
  /** The other entity. */
  readonly type: string;
  readonly eid: string;
}

export function createLinkRows(): LinkRows {
  return { cleared: false, byKey: new Map() };
}

/** Notes what becomes of a link. */
export function noteLink(rows: LinkRows, end: LinkEnd, change: "there" | "gone" | Span): void {
  const { reverse, attr, type, eid } = end;
  const key = `${reverse ? "<" : ">"}${attr}\t${type}\t${eid}`;
  if (change === "gone") rows.byKey.set(key, { reverse, attr, type, eid, kind: "gone" });
  else if (change === "there") rows.byKey.set(key, { reverse, attr, type, eid, kind: "plain" });
  else {
    const known = rows.byKey.get(key);
    const spans = known?.kind === "observed" ? [...known.spans, change] : [change];
    const fresh = known?.kind === "gone" || (known?.kind === "observed" && known.fresh);
    rows.byKey.set(key, { reverse, attr, type, eid, kind: "observed", spans, fresh });
  }
}
