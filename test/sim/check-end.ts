import type { ShardId } from "../../proto/ids.ts";
import type { MemoryStore } from "../support/memory-store.ts";
import { fieldsOf } from "../support/state-fields.ts";
import type { Checker } from "./checker.ts";
import type { Line } from "./ledger.ts";
import type { LinkChecks } from "./link-checks.ts";
import { linkAct, linkAttributes, stopCreatedMs, stopSeenMs } from "./link-load.ts";
import {
  flagsOf,
  hookIds,
  isDenied,
  isDoubtful,
  isMember,
  isOrdered,
  isStubborn,
  model,
  partnerOf,
  placeOf,
} from "./load.ts";

/** What must be true of the logs, and of all that was derived, whether or not everything has come to rest. */
export function checkLog(checker: Checker): void {
  const { ledger } = checker;
  for (const [shard, lines] of ledger.lines) {
    lines.sort((a, b) => a.seq - b.seq);
    for (const [index, line] of lines.entries()) {
      if (index > 0 && line.seq === lines[index - 1]?.seq)
        checker.add("doubled", `shard ${shard} has two lines at ${line.seq}`);
      if (line.at < (lines[index - 1]?.at ?? 0))
        checker.add("time", `shard ${shard} has arrived at ${line.seq} before it arrived at the line above`);
    }
  }
  for (const value of checker.durable) {
    const times = ledger.sent.get(value)?.length ?? 0;
    if (times === 0) checker.add("lost", `${value} is lost`);
  }
  for (const [value, lines] of ledger.sent)
    if (lines.length > 1) checker.add("doubled", `${value} stands ${lines.length} times in the log`);
  for (const [key, lines] of ledger.derived)
    if (lines.length > 1) checker.add("derived", `${key} was derived ${lines.length} times`);
  checkOrder(checker);
}

/** What must be true when everything has come to rest, beside {@link checkLog}: the records are as the logs make them. */
export function checkEnd(checker: Checker, database: MemoryStore, links: LinkChecks): void {
  const expected = new Expected(checker, database, links);
  for (const lines of checker.ledger.lines.values()) expected.fold(lines);
  expected.check();
  checkTicks(checker);
}

/** Each second between the first and the last one that were due has had its run, once. */
function checkTicks(checker: Checker): void {
  const ticks = [...checker.ledger.derived.values()].flat().filter(({ attr }) => attr === "tick");
  const times = ticks.map(({ v }) => Number(v.slice(v.indexOf("|") + 1))).sort((a, b) => a - b);
  for (const [index, time] of times.entries()) {
    const before = times[index - 1];
    if (before !== undefined && time !== before + 1000) checker.add("schedule", `${time} ran after ${before}`);
  }
}

/** Per entity and session, datapoints stand in the log in the order in which they were sent. */
function checkOrder(checker: Checker): void {
  const last = new Map<string, { readonly rank: number; readonly v: string }>();
  for (const lines of checker.ledger.lines.values()) {
    for (const { attr, eid, v } of lines) {
      if (attr !== "x") continue;
      const { session, number, index } = placeOf(v);
      const rank = number * 1000 + index;
      const key = `${session} ${eid}`;
      const before = last.get(key);
      if (before !== undefined && before.rank >= rank) checker.add("order", `${eid}: ${v} stands behind ${before.v}`);
      last.set(key, { rank, v });
    }
  }
}

interface Attribute {
  v: string;
  t1: number;
  n: number;
}

interface Life {
  readonly type: string;
  readonly eid: string;
  attributes: Map<string, Attribute>;
  exists: boolean;
  /** Values of `x` whose answers are to come, in order; and those of `order` that came. */
  readonly order: string[];
  readonly answered: string[];
  history: number;
  /** Those of its links. */
  links: Line[];
  /** When its life is over, Unix ms. */
  untilMs: number;
  /** The last seq that changed it. */
  applied: number;
}

/** Runs the log as an entity would, and knows what every hook must have derived. */
class Expected {
  readonly #checker: Checker;
  readonly #database: MemoryStore;
  readonly #lives = new Map<string, Life & { readonly shard: ShardId }>();
  readonly #keys = new Set<string>();
  readonly #deletions = new Map<string, number>();
  readonly #found = new Map<string, number>();
  readonly #letters: ReadonlySet<string>;
  readonly #links: LinkChecks;

  constructor(checker: Checker, database: MemoryStore, links: LinkChecks) {
    this.#checker = checker;
    this.#links = links;
    this.#database = database;
    const open = [...database.shards.values()].flatMap(({ letters }) => [...letters.values()]);
    this.#letters = new Set(
      open.filter(({ status }) => status !== "replayed").map(({ shard, seq, hook }) => `${shard}-${seq}-${hook}`),
    );
  }

  fold(lines: readonly Line[]): void {
    for (const line of lines) {
      if (line.kind === "other") continue;
      const life = this.#lifeOf(line);
      if (line.kind === "delete") this.#found.set(line.eid, (this.#found.get(line.eid) ?? 0) + 1);
      if (line.kind === "delete" || endsLife(life, line)) {
        life.exists = false;
        life.attributes = new Map();
        life.history = 0;
        life.links = [];
      } else if (line.kind !== "link" && !this.#isRefused(life, line)) this.#apply(life, line);
    }
  }

  #isRefused({ exists }: Life, { shard, task, eid }: Line): boolean {
    if (!this.#checker.refused.has(`${shard} ${task}`)) return false;
    if (exists || !(isDenied(eid) || isDoubtful(eid)))
      this.#checker.add("refused", `${eid}, which exists, was refused at ${shard}/${task}`);
    return true;
  }

  #lifeOf({ shard, type, eid }: Line): Life {
    const key = `${type} ${eid}`;
    const known = this.#lives.get(key);
    if (known !== undefined) return known;
    const none = { attributes: new Map(), order: [], answered: [], history: 0, links: [], untilMs: 0, applied: 0 };
    const made = { ...none, shard, type, eid, exists: false };
    this.#lives.set(key, made);
    return made;
  }

  #apply(life: Life, line: Line): void {
    const { shard, seq, task, attr, v, type, eid } = line;
    life.applied = seq;
    if (!life.exists) {
      life.exists = true;
      life.untilMs = line.at + stopCreatedMs;
      if (type === "item") {
        this.#keys.add(`born ${shard}-${task}-${hookIds.born}`);
        this.#keys.add(`births ${shard}-${task}-${hookIds.born}`);
      }
    }
    if (line.kind === "tokens") life.untilMs = Math.max(life.untilMs, line.untilMs);
    if (line.kind !== "datapoint") return;
    if (type === "stop") life.untilMs = Math.max(life.untilMs, line.at + stopSeenMs);
    if (linkAttributes.has(attr)) life.links.push(line);
    const plain = model.entities.get(type)?.attributes.get(attr)?.kind === "plain";
    const known = life.attributes.get(attr) ?? { v, t1: Number.NEGATIVE_INFINITY, n: 0 };
    const t1 = line.t1 ?? line.at;
    if (plain || t1 >= known.t1) Object.assign(known, { v, t1 });
    known.n++;
    life.attributes.set(attr, known);
    if (!plain) life.history++;
    const key = `${shard}-${seq}-`;
    if (attr === "order") life.answered.push(v.slice(v.indexOf("|") + 1));
    if (attr === "member") this.#keys.add(`sum ${key}${hookIds.sum}`);
    if (attr !== "x") return;
    const flags = flagsOf(v);
    if (isOrdered(v)) {
      life.order.push(v);
      this.#keys.add(`order ${key}${hookIds.own}`);
    }
    if (isMember(v)) this.#keys.add(`member ${key}${hookIds.cross}`);
    if (/[lo]/.test(flags)) this.#keys.add(`late ${key}${hookIds.late}`);
    if (flags.includes("o")) this.#keys.add(`later ${key}${hookIds.later}`);
    if (isStubborn(v)) this.#keys.add(`stubborn ${key}${hookIds.stubborn}`);
    if (flags.includes("f")) this.#keys.add(`mended ${key}${hookIds.fragile}`);
    this.#expectLinks(v, key);
    for (const gone of [...(flags.includes("d") ? [eid] : []), ...(flags.includes("p") ? [partnerOf(eid)] : [])]) {
      this.#deletions.set(gone, (this.#deletions.get(gone) ?? 0) + 1);
    }
  }

  #expectLinks(v: string, key: string): void {
    const act = linkAct(v);
    if (act?.kind === "stop") for (const attr of ["to", "named"]) this.#keys.add(`${attr} ${key}${hookIds.link}`);
    if (act?.kind === "line")
      for (const attr of ["via", "at", "called"]) this.#keys.add(`${attr} ${key}${hookIds.link}`);
    if (act?.kind === "place") for (const attr of ["in", "marked"]) this.#keys.add(`${attr} ${key}${hookIds.link}`);
    if (act?.kind === "delete") this.#deletions.set(act.line, (this.#deletions.get(act.line) ?? 0) + 1);
  }

  check(): void {
    const checker = this.#checker;
    const { derived } = checker.ledger;
    for (const key of this.#keys) {
      if (derived.has(key) || this.#letters.has(key.slice(key.indexOf(" ") + 1))) continue;
      checker.add("derived", `${key} is missing`);
    }
    for (const key of derived.keys())
      if (!this.#keys.has(key) && !key.startsWith("tick ")) checker.add("derived", `${key} has no cause`);
    for (const eid of new Set([...this.#deletions.keys(), ...this.#found.keys()])) {
      const [wanted, found] = [this.#deletions.get(eid) ?? 0, this.#found.get(eid) ?? 0];
      if (wanted !== found) checker.add("derived", `${eid} was deleted ${found} times, not ${wanted}`);
    }
    for (const life of this.#lives.values()) {
      if (life.order.join() !== life.answered.join())
        checker.add("order", `hooks of ${life.eid} ran as ${life.answered.join()}, the log says ${life.order.join()}`);
      this.#checkState(life);
      if (life.type === "item") this.#links.check(life.shard, life.eid, life.links);
    }
  }

  #checkState(life: Life & { readonly shard: ShardId }): void {
    const { shard, type, eid, attributes } = life;
    const stored = this.#database.shards.get(shard)?.entities.get(`${type}\t${eid}`);
    const found = stored === undefined || stored.tombstone ? "nothing" : write(fieldsOf<Attribute>(stored.state));
    const wanted = life.exists ? write(Object.fromEntries(attributes)) : "nothing";
    if (found !== wanted)
      this.#checker.add(life.exists ? "state" : "deletion", `${type} ${eid} is ${found}, not ${wanted}`);
    const lines = this.#database.historyOf({ shard, type, eid }).flatMap(({ body }) => body.split("\n"));
    if (lines.length !== life.history)
      this.#checker.add("history", `${type} ${eid} has ${lines.length} lines, not ${life.history}`);
    if (new Set(lines).size !== lines.length) this.#checker.add("history", `${type} ${eid} has lines twice`);
  }
}

/** Whether the collector's entry finds a life over. */
function endsLife({ type, exists, untilMs, applied }: Life, { change, at }: Line): boolean {
  if (change?.kind !== "expire" || !exists) return false;
  return type === "stop" ? untilMs < at : change.since !== null && applied <= change.since;
}

/** Without links, which {@link LinkChecks} knows better, and without tokens. */
function write(attributes: Record<string, Attribute>): string {
  return Object.entries(attributes)
    .filter(([attr]) => !linkAttributes.has(attr) && !attr.startsWith("#"))
    .map(([attr, { v, n }]) => `${attr}=${v} of ${n}`)
    .sort()
    .join(" ");
}
