import type { EntityFact, KillFacts, LogFact, RawFact } from "../kill-checker.ts";
import type { KillDatapoint } from "../kill-model.ts";
import { type ExpectedStream, expectStreams, type SentProbe, streamOf } from "./expected-streams.ts";

/** All that a run left behind. */
export interface ClusterFacts extends Pick<KillFacts, "raw" | "entities" | "history" | "refused" | "deadLetters"> {
  readonly sent: readonly SentProbe[];
  readonly logs: readonly LogFact[];
}

/** What is wrong, by kind; each a sentence. */
export interface Verdict {
  readonly lost: readonly string[];
  readonly doubled: readonly string[];
  readonly disordered: readonly string[];
  /** Everything else. */
  readonly other: readonly string[];
}

/** Compares what is stored with what was sent. */
export function checkClusterFacts(facts: ClusterFacts): Verdict {
  const expected = expectStreams(facts.sent);
  const verdict: Findings = { lost: [], doubled: [], disordered: [], other: [] };
  checkStreams("log", facts.raw, expected, verdict);
  checkStreams("history", facts.history, expected, verdict);
  verdict.other.push(
    ...checkKeys(facts.raw),
    ...checkPlaces(facts.raw),
    ...checkEntities(facts.entities, facts.raw),
    ...facts.refused.map((key) => `refused: ${key}`),
    ...facts.deadLetters.map((letter) => `dead letter: ${letter}`),
    ...checkLogs(facts.logs),
  );
  return verdict;
}

/** Every sentence of a verdict. */
export function sentencesOf({ lost, doubled, disordered, other }: Verdict): string[] {
  return [...lost, ...doubled, ...disordered, ...other];
}

type Findings = Record<keyof Verdict, string[]>;

/** Every stream holds its numbers, each once, in the order of sending; and there is no other stream. */
function checkStreams(
  place: string,
  datapoints: readonly KillDatapoint[],
  expected: ReadonlyMap<string, ExpectedStream>,
  findings: Findings,
): void {
  const found = new Map<string, number[]>();
  for (const datapoint of datapoints) {
    const key = streamOf(datapoint);
    const numbers = found.get(key);
    if (numbers === undefined) found.set(key, [numberOf(datapoint)]);
    else numbers.push(numberOf(datapoint));
  }
  for (const [key, { step, last }] of expected) {
    checkStream(`${place}: ${key}`, found.get(key) ?? [], { step, last }, findings);
    found.delete(key);
  }
  for (const [key, numbers] of found) findings.other.push(`${place}: unexpected: ${key}: ${brief(numbers)}`);
}

function checkStream(name: string, numbers: readonly number[], wanted: ExpectedStream, findings: Findings): void {
  const { step, last } = wanted;
  const seen = new Set(numbers);
  const lost: number[] = [];
  for (let number = step; number <= last; number += step) if (!seen.has(number)) lost.push(number);
  if (lost.length > 0) findings.lost.push(`${name}: lost: ${brief(lost)}`);
  const once = new Set<number>();
  const doubled = numbers.filter((number) => once.has(number) || !once.add(number));
  if (doubled.length > 0) findings.doubled.push(`${name}: twice: ${brief(doubled)}`);
  const strange = [...seen].filter((number) => number % step !== 0 || number < step || number > last);
  if (strange.length > 0) findings.other.push(`${name}: never sent: ${brief(strange)}`);
  const firsts = [...seen];
  const late = firsts.filter((number, at) => at > 0 && number < (firsts[at - 1] ?? 0));
  if (late.length > 0) findings.disordered.push(`${name}: after a greater one: ${brief(late)}`);
}

/** One run of a hook makes one datapoint: every key is there once. */
function checkKeys(raw: readonly RawFact[]): string[] {
  const seen = new Set<string>();
  const total = raw.filter(({ v }) => typeof v === "string");
  for (const { v } of total) seen.add(String(v).slice(String(v).indexOf(" ") + 1));
  return seen.size === total.length ? [] : [`${total.length} runs of hooks answered, ${seen.size} of them distinct`];
}

/** An entity lives in one shard. */
function checkPlaces(raw: readonly RawFact[]): string[] {
  const places = new Map<string, number>();
  const spread = new Set<string>();
  for (const { type, eid, shard } of raw) {
    const key = `${type} ${eid}`;
    if ((places.get(key) ?? shard) !== shard) spread.add(key);
    places.set(key, shard);
  }
  return [...spread].map((key) => `in several shards: ${key}`);
}

/** Each entity counts its datapoints, and has applied the last of them. */
function checkEntities(entities: readonly EntityFact[], raw: readonly RawFact[]): string[] {
  const counts = new Map<string, number>();
  const ends = new Map<string, number>();
  for (const { type, eid, attr, seq } of raw) {
    counts.set(`${type} ${eid} ${attr}`, (counts.get(`${type} ${eid} ${attr}`) ?? 0) + 1);
    ends.set(`${type} ${eid}`, seq);
  }
  const wrong: string[] = [];
  for (const { type, eid, applied, state } of entities) {
    const key = `${type} ${eid}`;
    if (ends.get(key) !== applied) wrong.push(`applied of ${key} is ${applied}, the log ends at ${ends.get(key)}`);
    ends.delete(key);
    for (const [attr, { n }] of Object.entries(state)) {
      const count = counts.get(`${key} ${attr}`);
      if (count !== n) wrong.push(`${key} counts ${n} of ${attr}, the log ${count ?? 0}`);
    }
  }
  return [...wrong, ...[...ends.keys()].map((key) => `no entity: ${key}`)];
}

function checkLogs(logs: readonly LogFact[]): string[] {
  return logs
    .filter(({ end, watermark, delivered }) => end !== watermark || end !== delivered)
    .map((log) => `shard ${log.shard} ends at ${log.end}: watermark ${log.watermark}, delivered ${log.delivered}`);
}

/** Of a derived datapoint the number of its cause. */
function numberOf({ v }: KillDatapoint): number {
  return typeof v === "number" ? v : Number(v.split(" ")[0]);
}

function brief(numbers: readonly number[]): string {
  const shown = numbers.slice(0, 8).join(", ");
  return numbers.length > 8 ? `${shown}, … (${numbers.length})` : shown;
}
