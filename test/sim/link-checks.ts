import type { ShardId } from "../../proto/ids.ts";
import type { MemoryCommit, MemoryStore } from "../support/memory-store.ts";
import { fieldsOf } from "../support/state-fields.ts";
import type { Checker } from "./checker.ts";
import type { Line } from "./ledger.ts";
import { linkAttributes } from "./link-load.ts";

/** How far a log had come. */
interface Place {
  readonly seq: number;
  readonly at: number;
}

type Ends = ReadonlyMap<ShardId, Place>;

interface StoredLink {
  readonly attr: string;
  readonly eid: string;
}

/**
 * Links and the dead: what stood in any log when the deletion of its target was written is forgotten, what came later stays,
 * and the rows of links say what the records say. It does not matter here what sources were told: only what is left.
 */
export class LinkChecks {
  readonly #checker: Checker;
  readonly #database: () => MemoryStore;
  /** By target: how far every log had come at each of its deletions. */
  readonly #deaths = new Map<string, Ends[]>();
  obituaries = 0;

  constructor(checker: Checker, database: () => MemoryStore) {
    this.#checker = checker;
    this.#database = database;
  }

  onCommit(commit: MemoryCommit): void {
    if (commit.kind !== "flush") return;
    const { obituaries = [] } = commit.request;
    if (obituaries.length === 0) return;
    const { lines } = this.#checker.ledger;
    const ends = new Map<ShardId, Place>();
    for (const [shard, all] of lines) {
      const last = all.at(-1);
      // An append that is on its way has its time, which a flush may have told already.
      const at = this.#database().shards.get(shard)?.at ?? 0;
      if (last !== undefined) ends.set(shard, { seq: last.seq, at: Math.max(at, last.at) });
    }
    for (const { type, eid } of obituaries) {
      const key = `${type} ${eid}`;
      this.#deaths.set(key, [...(this.#deaths.get(key) ?? []), ends]);
      this.obituaries++;
    }
  }

  /** What is still to be done for those whose time has come; null: nothing. */
  get unrest(): string | null {
    for (const [shard, { obituaries, entities }] of this.#database().shards) {
      if (obituaries.size > 0) return `shard ${shard} has an obituary that nobody buried`;
      for (const { type, eid, tombstone } of entities.values()) {
        if (type === "stop" && !tombstone) return `stop ${eid} lives on`;
        if (type === "place" && !tombstone && !this.#isLinked(eid)) return `place ${eid} lives on without a link`;
      }
    }
    return null;
  }

  #isLinked(place: string): boolean {
    for (const { links } of this.#database().shards.values())
      for (const rows of links.values()) if (rows.some((row) => row.type === "place" && row.eid === place)) return true;
    return false;
  }

  #isThere(place: string): boolean {
    const all = [...this.#database().shards.values()];
    return all.some(({ entities }) => entities.get(`place\t${place}`)?.tombstone === false);
  }

  /** Once the cluster is at rest. `logged`: the links of the present life of an item, in the order of its log. */
  check(shard: ShardId, eid: string, logged: readonly Line[]): void {
    const stored = this.#database().shards.get(shard);
    const entity = stored?.entities.get(`item\t${eid}`);
    const state = entity === undefined || entity.tombstone ? {} : fieldsOf(entity.state);
    const rows = (stored?.links.get(`item\t${eid}`) ?? []) as readonly StoredLink[];
    for (const attr of linkAttributes) {
      const own = logged.filter((line) => line.attr === attr);
      const found = rows.filter((row) => row.attr === attr).map((row) => row.eid);
      const value = (state[attr] as { readonly v: { readonly eid: string; readonly data: string } } | undefined)?.v;
      if (attr === "at") this.#checkObserved(eid, own, found, value?.data);
      else this.#checkPlain(`${eid} ${attr}`, own.at(-1), found, value);
      // Whoever links to a place tells it so: it is there, unless it ended with a link on its way.
      if (attr === "in" && value !== undefined && !this.#isThere(value.eid))
        this.#say(`${eid} is in ${value.eid}, which has ended`);
    }
  }

  #checkPlain(
    name: string,
    last: Line | undefined,
    rows: readonly string[],
    value: { readonly eid: string; readonly data: string } | undefined,
  ): void {
    if (rows.join() !== (value?.eid ?? ""))
      this.#say(`${name}: the rows name ${rows.join() || "nobody"}, the record ${value?.eid ?? "nobody"}`);
    const fate = last === undefined ? "dead" : this.#fateOf(last);
    if (fate === "dead" && value !== undefined) this.#say(`${name} names ${value.eid}, which was deleted since`);
    if (fate === "alive" && value?.data !== last?.v)
      this.#say(`${name} is ${value?.data ?? "gone"}, not ${last?.v} of ${last?.target}`);
  }

  #checkObserved(eid: string, logged: readonly Line[], rows: readonly string[], data: string | undefined): void {
    const newest = new Map(logged.map((line) => [line.target ?? "", line]));
    for (const [target, line] of newest) {
      const fate = this.#fateOf(line);
      if (fate === "alive" && !rows.includes(target)) this.#say(`${eid} at ${target} is gone, seen at ${line.seq}`);
      if (fate === "dead" && rows.includes(target)) this.#say(`${eid} at ${target}, which was deleted since`);
    }
    for (const row of rows) if (!newest.has(row)) this.#say(`${eid} at ${row} was never observed`);
    if (data === undefined) return;
    const shown = logged.find(({ v }) => v === data);
    if (shown === undefined) this.#say(`${eid} shows ${data}, which is of no life of now`);
    else if (this.#fateOf(shown) === "dead")
      this.#say(`${eid} shows ${data} of ${shown.target}, which was deleted since`);
  }

  /** What arrived until a deletion was written, and was appended only then, may be forgotten with it or stay. */
  #fateOf({ shard, seq, at, attr, target }: Line): "dead" | "alive" | "either" {
    let fate: "alive" | "either" = "alive";
    for (const ends of this.#deaths.get(`${attr === "to" ? "stop" : attr === "in" ? "place" : "line"} ${target}`) ??
      []) {
      const end = ends.get(shard);
      if (end === undefined) continue;
      if (end.seq >= seq) return "dead";
      if (end.at >= at) fate = "either";
    }
    return fate;
  }

  #say(text: string): void {
    this.#checker.add("link", text);
  }
}
