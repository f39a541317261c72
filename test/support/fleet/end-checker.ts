import { boundsOf, type FleetSent, lines, rideAt, rideEveryMs, stops } from "./fleet-sent.ts";
import type { ToldRun } from "./run-checker.ts";

/** What a fleet has left behind, when all is processed and every life that was to end is over. */
export interface FleetFacts {
  /** Finished runs, in their order. */
  readonly runs: readonly ToldRun[];
  /** Values of the log, as often as they stand there, by what hooks told them as: `lone seen`, `round began` … */
  readonly told: ReadonlyMap<string, readonly string[]>;
  /** The same from histories. */
  readonly kept: ReadonlyMap<string, readonly string[]>;
  /** Who links to a line, or at an instant to a stop: eids of buses by `line-1`, or `stop-1 7` for the 7th tasks of all buses. */
  readonly referrers: ReadonlyMap<string, readonly string[]>;
  /** What is stored of links, from and to. */
  readonly references: readonly { readonly eid: string; readonly attr: string; readonly target: string }[];
  /** Guests and badges that are stored. */
  readonly mortals: readonly string[];
}

/** Instants at which links to stops are asked for: of so many tasks of each bus. */
export const ridesAsked = [1, 4, 9];

/** When the observation of the `n`th tasks holds. */
export function heldAt(beginsAt: number, n: number): number {
  return rideAt(beginsAt, n) + rideEveryMs / 4;
}

/** What is wrong, sentence by sentence. */
export function checkFleetEnd(facts: FleetFacts, sent: FleetSent): string[] {
  return [
    ...checkTasks("log", facts.told, facts.runs),
    ...checkTasks("history", facts.kept, facts.runs),
    ...checkReferrers(facts.referrers, sent),
    ...checkReferences(facts.references, sent),
    ...checkMortals(facts, sent),
    ...checkLast(facts.runs.at(-1), sent),
  ];
}

/** Of each finished run each task of a hook once; of those that failed at most once. */
function checkTasks(place: string, told: FleetFacts["told"], runs: readonly ToldRun[]): string[] {
  const problems: string[] = [];
  for (const attr of ["lone seen", "lone counted", "round began", "round ended"]) {
    const counts = new Map<string, number>();
    for (const value of told.get(attr) ?? []) counts.set(keyOfTask(value), (counts.get(keyOfTask(value)) ?? 0) + 1);
    const doubled = [...counts].filter(([, count]) => count > 1);
    if (doubled.length > 0) problems.push(`${place}: ${attr} twice: ${brief(doubled.map(([key]) => key))}`);
    const wanted = runs.flatMap((run) => tasksOf(attr, run));
    const lost = wanted.filter((key) => !counts.has(key));
    if (lost.length > 0) problems.push(`${place}: ${attr} lost: ${brief(lost)}`);
    const [first, last] = [runs[0]?.tick ?? 0, runs.at(-1)?.tick ?? 0];
    const ticks = new Set(runs.map(({ tick }) => tick));
    if (attr.startsWith("round")) continue;
    const known = new Set(wanted);
    const strange = [...counts.keys()].filter((key) => ticks.has(Number(key.split(" ")[0])) && !known.has(key));
    if (strange.length > 0) problems.push(`${place}: ${attr} of nobody in runs ${first} to ${last}: ${brief(strange)}`);
  }
  return problems;
}

/** A key of a hook's call by tick and eid; an instant stands for itself. */
function keyOfTask(value: string): string {
  const [tick = "", type, name, number] = value.split("-");
  return type === undefined ? value : `${tick} ${name}-${number}`;
}

function tasksOf(attr: string, { tick, at, snapshots }: ToldRun): string[] {
  if (attr.startsWith("round")) return [String(at)];
  return snapshots.filter(({ type }) => type === "lone").map(({ eid }) => `${tick} ${eid}`);
}

/** Links from their other ends: those of the last tasks, and of observations at an instant. */
function checkReferrers(referrers: FleetFacts["referrers"], { tasks, deletions }: FleetSent): string[] {
  const wanted = new Map<string, string[]>();
  const want = (key: string, bus: string): void => void wanted.set(key, [...(wanted.get(key) ?? []), bus]);
  for (const [key, sent] of tasks) {
    const [type, bus = ""] = key.split(" ");
    const last = sent.at(-1)?.ride;
    if (type !== "bus" || last === undefined || last === null) continue;
    want(last.line, bus);
    for (const n of ridesAsked) {
      const stop = sent[n - 1]?.ride?.stop;
      if (stop !== undefined) want(`${stop} ${n}`, bus);
    }
  }
  return [...referrers].flatMap(([key, found]) => {
    const should = deletions.has(key) ? [] : (wanted.get(key) ?? []);
    return String([...found].sort()) === String(should.sort())
      ? []
      : [`${key} is linked by ${found}, not by ${should}`];
  });
}

/** Nobody links to what is gone, and every bus to what its last task says. */
function checkReferences(references: FleetFacts["references"], { tasks, passing, deletions }: FleetSent): string[] {
  const problems: string[] = [];
  const links = new Map<string, string[]>();
  for (const { eid, attr, target } of references) {
    if (passing.has(target)) problems.push(`${eid} links to ${target}, whose time is over`);
    if (deletions.has(target)) problems.push(`${eid} links to ${target}, which was deleted`);
    if (attr === "line") links.set(eid, [...(links.get(eid) ?? []), target]);
  }
  for (const [key, sent] of tasks) {
    const [type, eid = ""] = key.split(" ");
    if (type !== "bus") continue;
    const line = sent.at(-1)?.ride?.line ?? "";
    const should = deletions.has(line) ? [] : [line];
    if (String(links.get(eid) ?? []) !== String(should))
      problems.push(`${eid} links to ${links.get(eid)}, not to ${should}`);
  }
  return problems;
}

/** Those whose time is over are gone, and none of those that have some left; the same of badges and their buses. */
function checkMortals({ mortals: stored }: FleetFacts, { tasks, passing, dropped }: FleetSent): string[] {
  const staying = [...tasks.keys()].flatMap((key) => {
    const [type, eid = ""] = key.split(" ");
    return type === "guest" || (type === "badge" && !dropped.has(eid)) ? [eid] : [];
  });
  const missing = staying.filter((eid) => !stored.includes(eid));
  const late = stored.filter((eid) => passing.has(eid) || dropped.has(eid));
  return [
    ...(missing.length === 0 ? [] : [`gone before their time: ${brief(missing)}`]),
    ...(late.length === 0 ? [] : [`there after their time: ${brief(late)}`]),
  ];
}

/** The last run, which began when all was at rest: all that there is, as it was sent last. */
function checkLast(run: ToldRun | undefined, { tasks, passing, deletions, dropped }: FleetSent): string[] {
  if (run === undefined) return ["no run has finished"];
  const found = new Map(run.snapshots.map(({ type, eid, values }) => [`${type} ${eid}`, values]));
  const problems: string[] = [];
  for (const [key, sent] of tasks) {
    const [type, eid = ""] = key.split(" ");
    const most = dropped.has(eid) ? 0 : boundsOf(sent, run).most;
    const followers =
      type === "cause" ? ["effect", "after"].map((name) => `${name} ${eid.replace("cause", name)}`) : [];
    for (const one of [key, ...followers]) {
      const n = Number(found.get(one)?.n ?? 0);
      if (n !== most) problems.push(`at the end ${one} is ${n}, not ${most}`);
    }
  }
  for (const eid of passing) if (found.has(`guest ${eid}`)) problems.push(`at the end guest ${eid} is there`);
  for (const eid of deletions.keys()) if (found.has(`line ${eid}`)) problems.push(`at the end line ${eid} is there`);
  return problems;
}

/** What is asked of links for {@link FleetFacts.referrers}. */
export const referrersAsked = { lines: [...lines.lasting, ...lines.ghosts, ...lines.doomed], stops };

function brief(items: readonly string[]): string {
  const shown = items.slice(0, 5).join(", ");
  return items.length > 5 ? `${shown}, … (${items.length})` : shown;
}
