import type { Seq, ShardId } from "../../proto/ids.ts";
import type { EntityKey, Store } from "./store.ts";

/* What the store keeps of links and of obituaries, and what is asked of it: see `actors/links/entity-links.ts` and `link-keeper.ts`. */

/** A link of an entity: over which attribute, and whereto. */
export interface LinkEnd {
  readonly attr: string;
  readonly type: string;
  readonly eid: string;
}

/** What a flush writes of a link: one that is observed was `seen`, and of more times than 64 apart the shortest gaps are closed. */
export type LinkRow =
  | SeenLink
  | (LinkEnd & { readonly kind: "plain" | "gone" })
  /** An observed link goes, unless the newest of its observations arrived after `before` (Unix ms); null: in any case. */
  | (LinkEnd & { readonly kind: "forgotten"; readonly before: number | null });

export interface SeenLink extends LinkEnd {
  readonly kind: "seen";
  /** When the newest of the observations arrived, Unix ms. */
  readonly at: number;
  /** When it was observed. */
  readonly spans: readonly Span[];
}

/** Whole Unix milliseconds, both included. */
export interface Span {
  readonly from: number;
  readonly to: number;
}

/** Links of one entity that changed, to be written in this order; `cleared`: all that stood before are gone. */
export interface LinkSegment extends EntityKey {
  readonly cleared: boolean;
  readonly rows: readonly LinkRow[];
}

/** Of an entity that was deleted by the task `seq`, and to which others may link. */
export interface NewObituary extends EntityKey {
  readonly seq: Seq;
}

/** The obituaries that one flush left in one shard. */
export interface Obituary {
  readonly shard: ShardId;
  /** Its name within the shard: the highest seq of the deletions. */
  readonly seq: Seq;
  readonly dead: readonly { readonly type: string; readonly eid: string }[];
  /** How far every log went when it was left. */
  readonly places: ReadonlyMap<ShardId, LogEnd>;
}

/** The end of a shard's log. */
export interface LogEnd {
  readonly seq: Seq;
  /** When the newest entry arrived, Unix ms. */
  readonly at: number;
}

/** How far a shard is. */
export interface ShardPlace extends LogEnd {
  readonly shard: ShardId;
  /** Up to here everything is applied and flushed: the watermark, or what entities owe below it (R16). */
  readonly settled: Seq;
  /** Up to here everything that was derived for other shards is durable there. */
  readonly delivered: Seq;
}

/** The upkeep of links: what comes of obituaries. */
export interface Obituaries extends Pick<Store, "places"> {
  /** Obituaries of shards, oldest first within each. */
  obituaries(shards: readonly ShardId[], limit: number): Promise<Obituary[]>;
  /** Who links to an entity: by attribute, then type, then eid of the source. */
  referrers(target: Omit<EntityKey, "shard">, after: LinkEnd | null, limit: number): Promise<LinkEnd[]>;
  /** Removes an obituary. */
  bury(obituary: Pick<Obituary, "shard" | "seq">): Promise<void>;
}

export interface LinksQuery extends EntityKey {
  /** True: who links to the entity, in whatever shard. */
  readonly reverse: boolean;
  /** Unix ms. */
  readonly at: number;
  /** The attributes that are asked for, of the source's type, and how long before and after an observation it holds. */
  readonly attributes: readonly LinkAttribute[];
  /** Continue after this one. */
  readonly after: LinkEnd | null;
  readonly limit: number;
}

export interface LinkAttribute {
  readonly type: string;
  readonly attr: string;
  readonly preValidityMs: number;
  readonly postValidityMs: number;
}

/** Whether entities of one type are linked to. */
export interface ReferredQuery {
  readonly type: string;
  readonly eids: readonly string[];
  /** Unix ms. */
  readonly at: number;
  /** The attributes that count: those that may lead to the type. */
  readonly attributes: readonly LinkAttribute[];
}

/** A link that holds at an instant, named by its other end. */
export interface LinkAt extends LinkEnd {
  /** When it was observed, as far as that is what holds at the instant; null: a plain link, which holds now. */
  readonly span: Span | null;
}
