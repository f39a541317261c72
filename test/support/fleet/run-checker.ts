import { boundsOf, type FleetSent, guests, lines, type SentTask, stops } from "./fleet-sent.ts";

/*
 * What is wrong with a finished run, found from what it tells and from what the fleet was sent; `fleet-config/code/fleet.ts` says
 * what hooks make of it.
 *
 *  1. Each entity stands there once, and those that the run has computed.
 *  2. What was durable before the run began is in it, and nothing that was not sent before it ended.
 *  3. No effect without its cause: an effect is never ahead of it.
 *  4. The values of one task stand together; what hooks made of them fits them, over links in both directions, too.
 */

/** A run as a reader was told it. */
export interface ToldRun {
  readonly tick: number;
  /** The instant that it shows, Unix ms. */
  readonly at: number;
  readonly startedAt: number;
  readonly endedAt: number;
  /** How many entities were computed, which are all of them in a full run; and values that could not be stored. */
  readonly kind: "full" | "changed";
  readonly computed: number;
  readonly refused: number;
  /** What the reports of its hooks complain of. */
  readonly problems: readonly string[];
  readonly snapshots: readonly ToldSnapshot[];
}

export interface ToldSnapshot {
  readonly type: string;
  readonly eid: string;
  readonly values: Readonly<Record<string, unknown>>;
}

/** What is wrong with one run, sentence by sentence. */
export function checkRun(run: ToldRun, sent: FleetSent): string[] {
  const byKey = new Map(run.snapshots.map((one) => [keyOf(one), one]));
  const problems = [
    ...run.problems,
    ...(run.refused === 0 ? [] : [`${run.refused} values could not be stored`]),
    ...checkCount(run),
    ...(byKey.size === run.snapshots.length ? [] : [`${run.snapshots.length - byKey.size} are there twice`]),
    ...checkCounters(run, byKey, sent),
    ...checkEffects(byKey),
    ...checkPresence(run, byKey, sent),
    ...run.snapshots.flatMap((one) => checkLone(one)),
    ...checkRides(byKey, sent),
  ];
  return problems.map((problem) => `run ${run.tick}: ${problem}`);
}

/** What is wrong between runs, given in their order: what counts never steps back, and nothing that stays is ever missing. */
export function checkSequence(runs: readonly ToldRun[]): string[] {
  const problems: string[] = [];
  const known = new Map<string, { readonly n: number; readonly tick: number }>();
  for (const { tick, snapshots } of runs) {
    const numbers = new Map(snapshots.map((one) => [keyOf(one), numberOf(one)]));
    for (const [key, before] of known) {
      const n = numbers.get(key);
      if (n === undefined) problems.push(`run ${tick}: ${key} of run ${before.tick} is missing`);
      else if (n < before.n)
        problems.push(`run ${tick}: ${key} steps back to ${n} from ${before.n} of run ${before.tick}`);
    }
    for (const one of snapshots) {
      const n = numberOf(one);
      if (["cause", "effect", "after", "lone", "bus"].includes(one.type)) known.set(keyOf(one), { n, tick });
    }
  }
  return problems;
}

/** Rule 1. */
function checkCount({ kind, computed, snapshots }: ToldRun): string[] {
  const fits = kind === "full" ? computed === snapshots.length : computed <= snapshots.length;
  return fits ? [] : [`${snapshots.length} were told of a ${kind} run that computed ${computed}`];
}

type ByKey = ReadonlyMap<string, ToldSnapshot>;

/** Rule 2 for what counts. */
function checkCounters(run: ToldRun, byKey: ByKey, { tasks, dropped }: FleetSent): string[] {
  const problems: string[] = [];
  for (const [key, sent] of tasks) {
    const { least, most } = boundsOf(sent, run);
    const found = byKey.get(key);
    // A guest whose hook is late may go before it has its token, and come again.
    const [, eid = ""] = key.split(" ");
    const mayMiss = guests.staying.includes(eid) || dropped.has(eid);
    if (found === undefined && least > 0 && !mayMiss)
      problems.push(`${key} is missing, ${least} was durable before it began`);
    if (found === undefined) continue;
    const n = numberOf(found);
    if (n < least || n > most) problems.push(`${key} is ${n}, and has to be from ${least} to ${most}`);
  }
  return problems;
}

/** Rule 3. */
function checkEffects(byKey: ByKey): string[] {
  const problems: string[] = [];
  for (const [type, from] of [
    ["effect", "cause"],
    ["after", "effect"],
  ] as const) {
    for (const one of byKey.values()) {
      if (one.type !== type) continue;
      const cause = byKey.get(`${from} ${one.eid.replace(type, from)}`);
      const [n, before] = [numberOf(one), cause === undefined ? 0 : numberOf(cause)];
      if (n > before) problems.push(`${one.eid} is ${n}, its cause ${before}`);
    }
  }
  return problems;
}

/** Rule 2 for lines, stops and guests, and for what there is no reason to have. */
function checkPresence(run: ToldRun, byKey: ByKey, sent: FleetSent): string[] {
  const { tasks, passing, deletions } = sent;
  const problems: string[] = [];
  const isMissing = (type: string, eid: string): boolean =>
    sent.openedAt < run.startedAt && !byKey.has(`${type} ${eid}`);
  for (const eid of [...lines.lasting, ...lines.doomed]) {
    const deletion = deletions.get(eid);
    const isGone = deletion !== undefined && deletion.doneAt !== null && deletion.doneAt < run.startedAt;
    const isToStay = deletion === undefined || deletion.askedAt > run.endedAt;
    if (isToStay && isMissing("line", eid)) problems.push(`line ${eid} is missing`);
    if (isGone && byKey.has(`line ${eid}`)) problems.push(`line ${eid} was deleted before it began`);
  }
  for (const eid of stops) if (isMissing("stop", eid)) problems.push(`stop ${eid} is missing`);
  const lasting = new Set([...lines.lasting, ...lines.doomed, ...stops]);
  for (const { type, eid } of byKey.values()) {
    const isKnown = type === "effect" || type === "after" || tasks.has(`${type} ${eid}`) || lasting.has(eid);
    if (!isKnown && !passing.has(eid)) problems.push(`${type} ${eid} was never sent`);
  }
  return problems;
}

/** Rule 4 within an entity. */
function checkLone({ type, eid, values }: ToldSnapshot): string[] {
  if (type !== "lone") return [];
  const { n, points, doubled } = values;
  const problems: string[] = [];
  if (points !== n) problems.push(`${eid} has ${points} points in its ${n} tasks`);
  if (doubled !== 2 * Number(n)) problems.push(`${eid} is ${n}, doubled ${doubled}`);
  return problems;
}

/** Rule 4 over links: buses as their tasks say, lines as their buses do, and buses as their lines do. */
function checkRides(byKey: ByKey, { tasks, deletions }: FleetSent): string[] {
  const problems: string[] = [];
  const riders = new Map<string, ToldSnapshot[]>();
  const isGone = (line: string): boolean => deletions.has(line) && !byKey.has(`line ${line}`);
  for (const one of byKey.values()) {
    if (one.type !== "bus") continue;
    const line = targetOf(one.values.line);
    const ride = rideOf(tasks, one);
    // Of a line that is gone the link goes, too, sooner or later.
    const fits = line === ride?.line || (line === null && ride !== null && isGone(ride.line));
    if (!fits || one.values.speed !== ride?.speed) {
      problems.push(
        `${one.eid} ${numberOf(one)} is on ${line} at ${one.values.speed}, not ${ride?.line} at ${ride?.speed}`,
      );
    }
    if (line !== null) riders.set(line, [...(riders.get(line) ?? []), one]);
  }
  for (const { type, eid, values } of byKey.values()) {
    if (type === "line") problems.push(...checkLine(eid, values, riders.get(eid) ?? []));
    if (type !== "bus") continue;
    const line = byKey.get(`line ${targetOf(values.line)}`);
    const behind = Number(line?.values.fastest ?? 0) - Number(values.speed);
    if (values.behind !== behind) problems.push(`${eid} is behind by ${values.behind}, not ${behind}`);
  }
  return problems;
}

function checkLine(eid: string, values: ToldSnapshot["values"], riders: readonly ToldSnapshot[]): string[] {
  const mirrored = Array.isArray(values.buses) ? values.buses.map((one) => targetOf(one)).sort() : [];
  const wanted = riders.map((bus) => bus.eid).sort();
  const fastest = Math.max(0, ...riders.map((bus) => Number(bus.values.speed)));
  const problems: string[] = [];
  if (String(mirrored) !== String(wanted)) problems.push(`${eid} mirrors ${mirrored}, and has ${wanted}`);
  if (values.size !== wanted.length) problems.push(`${eid} counts ${values.size} buses of ${wanted.length}`);
  if (values.fastest !== fastest) problems.push(`the fastest of ${eid} is ${values.fastest}, not ${fastest}`);
  return problems;
}

function rideOf(tasks: FleetSent["tasks"], bus: ToldSnapshot): SentTask["ride"] {
  return tasks.get(keyOf(bus))?.[numberOf(bus) - 1]?.ride ?? null;
}

/** The eid of a link. */
function targetOf(value: unknown): string | null {
  return typeof value === "object" && value !== null && "eid" in value ? String(value.eid) : null;
}

function numberOf({ values }: ToldSnapshot): number {
  return Number(values.n ?? 0);
}

function keyOf({ type, eid }: ToldSnapshot): string {
  return `${type} ${eid}`;
}
