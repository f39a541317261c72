import type { CheckedDatapoint } from "../../modules/datapoint.ts";
import type { HookKind } from "../../modules/hook.ts";
import type { AttributeSpec, EntitySpec } from "../../modules/model.ts";
import type { HistoryPoint, SnapshotHooks } from "../../modules/snapshot-hook.ts";
import type { EntityAt } from "../history/entity-at.ts";
import type { StoredHistory } from "../history/history-at.ts";
import { type FoundHistory, type HistoryPart, mergeHistories } from "../history/history-read.ts";
import { historyRuleOf } from "../history/history-rule.ts";
import { compareStarts, confidenceOf, mergeRuns, observe, type Piece, wholeRuns } from "../history/history-run.ts";
import { currentValues, keepNewest, nextChange } from "../history/history-value.ts";
import { memberAt } from "../lane/entity-state.ts";
import { type LargeValue, splitState } from "../store/large-value.ts";

/** What is stored of one entity, as it was at its shard's mark. */
export interface RecordAt extends FoundHistory {
  /** Canonical text. */
  readonly eid: string;
  /** As `writeState` writes it. */
  readonly state: string;
  readonly large?: readonly LargeValue[] | undefined;
}

/** What a snapshot needs of the entities of one type. */
export interface ValuesPlan {
  readonly atMs: number;
  /** The part of the histories that has to be read, see `planWindows`. */
  readonly part: HistoryPart;
  /** Whether a correlation hook of the type asks for the master record. */
  readonly master: boolean;
  /** Whether a hook of the type asks from when to when values were observed. */
  readonly spans: boolean;
}

/** What has to be read of the entities of a type, for the snapshot of an instant (Unix ms) with these hooks. */
export function planValues(type: string, hooks: SnapshotHooks, atMs: number): ValuesPlan {
  const asks = (kind: HookKind) => hooks.correlation.some((hook) => hook.type === type && hook.kind === kind);
  const master = asks("correlation_with_master_record");
  const whole = master || (hooks.timeseries.get(type)?.size ?? 0) > 0;
  return { atMs, part: whole ? { newest: null } : { since: atMs }, master, spans: asks("on_new_attr") };
}

/** Values that are being put together; datapoints may be added to them. */
export interface ValuesDraft {
  readonly spec: EntitySpec;
  readonly eid: string;
  /** By index of the attribute: the JSON text of plain values, and when they arrived, if anybody wants to know. */
  readonly plain: (string | undefined)[];
  readonly plainAt: number[] | null;
  readonly histories: Map<string, StoredHistory>;
}

/**
 * The values of an entity at an instant, and when time alone will change one: what `entity get --at` tells, with plain attributes
 * as they are stored. What is too old at that instant is not there. Mirrors are missing: links of others make them.
 */
export function valuesAt(spec: EntitySpec, record: RecordAt, plan: ValuesPlan): EntityAt {
  return finishValues(draftValues(spec, record, plan), plan);
}

/** What is stored, taken apart. */
export function draftValues(spec: EntitySpec, record: RecordAt, { part, master }: ValuesPlan): ValuesDraft {
  const plain: (string | undefined)[] = new Array(spec.attributeList.length);
  const plainAt: number[] | null = master ? [] : null;
  readPlain({ spec, plain, plainAt }, record);
  const isBare = record.rows.length === 0 && record.pages.length === 0;
  const histories = isBare ? new Map<string, StoredHistory>() : mergeHistories(spec, record, part);
  return { spec, eid: record.eid, plain, plainAt, histories };
}

/** Adds datapoints of the entity as if they had come before the instant. Their histories must have been read as a whole. */
export function addDatapoints(draft: ValuesDraft, datapoints: readonly CheckedDatapoint[], atMs: number): void {
  for (const { spec, json, t1, t2, c } of datapoints) {
    if (spec.kind === "plain") {
      draft.plain[spec.index] = json;
      if (draft.plainAt !== null) draft.plainAt[spec.index] = atMs;
      continue;
    }
    const { runs, cut } = draft.histories.get(spec.id) ?? noHistory;
    const piece = observe(json, t1 ?? atMs, t2 ?? t1 ?? atMs, c);
    draft.histories.set(spec.id, { runs: mergeRuns(historyRuleOf(spec), wholeRuns(runs), [piece]), cut });
  }
}

/** The history of an attribute as hooks get it, by its beginnings. */
export function historyOf({ histories }: ValuesDraft, spec: AttributeSpec, atMs: number): HistoryPoint[] {
  return keptRuns(histories, spec, atMs).map((run) => {
    const v = spec.dataType === null ? JSON.parse(run.value) : spec.dataType.read(run.value);
    const point = { t1: run.t1, t2: run.t2, v };
    return spec.kind === "timeseries" ? point : { ...point, c: confidenceOf(run) };
  });
}

/** The values as of the instant, all datapoints added. */
export function finishValues(draft: ValuesDraft, { atMs, master, spans }: ValuesPlan): EntityAt {
  const { spec, eid, histories, plain } = draft;
  const confidences: (string | undefined)[] = new Array(plain.length);
  const written = master ? writeMaster(draft, atMs) : null;
  const observed: string[] = [];
  let due = Number.POSITIVE_INFINITY;
  for (const [attr, { runs, cut }] of histories) {
    const attribute = spec.attributes.get(attr);
    if (attribute === undefined || attribute.kind !== "observations") continue;
    const rule = historyRuleOf(attribute);
    const kept = keepNewest(rule, runs, atMs, cut).runs;
    const current = currentValues(rule, kept, atMs);
    due = Math.min(due, nextChange(rule, kept, atMs, current) ?? due);
    const [first] = current;
    if (first === undefined) continue;
    if (spans) observed.push(`"${attr}":[${current.map(({ run }) => `[${run.t1},${run.t2}]`).join(",")}]`);
    const many = attribute.multiValue;
    plain[attribute.index] = many ? `[${current.map(({ run }) => run.value).join(",")}]` : first.run.value;
    confidences[attribute.index] = many ? `[${current.map(({ c }) => c).join(",")}]` : String(first.c);
  }
  // A snapshot has the entity's own id under that name.
  const clash = spec.attributes.get("eid");
  if (clash !== undefined) plain[clash.index] = undefined;
  const next = due === Number.POSITIVE_INFINITY ? null : due <= atMs ? always : due;
  const rest = { master: written, spans: spans ? `{${observed.join(",")}}` : null };
  return { spec, eid, texts: plain, confidences, due: next, ...rest };
}

/** The due of what changes from one instant to the next: the same in every run, so it is stored once. */
const always = 0;

const noHistory: StoredHistory = { runs: [], cut: Number.NEGATIVE_INFINITY };

/** The plain values of what `writeState` wrote. */
function readPlain({ spec, plain, plainAt }: Pick<ValuesDraft, "spec" | "plain" | "plainAt">, record: RecordAt): void {
  const { state, large = [] } = record;
  const { attributes } = spec;
  let { at } = splitState(state);
  for (const { attr, body } of large) {
    const attribute = attributes.get(attr);
    if (attribute?.kind !== "plain" || body === null) continue;
    plain[attribute.index] = body;
    if (plainAt !== null)
      plainAt[attribute.index] = arrivalOf(state, state.indexOf(`"${attr}":{`) + attr.length + 3 + afterName);
  }
  while (at < state.length - 1 && state.charCodeAt(at + 1) !== hash) {
    const member = memberAt(state, at);
    if (member === null) throw new Error(`a stored state of ${spec.id} is damaged at ${at}`);
    const { attr, isShort, start, end, close } = member;
    const attribute = attributes.get(attr);
    if (attribute?.kind === "plain") {
      plain[attribute.index] = state.slice(start, end);
      if (plainAt !== null) plainAt[attribute.index] = arrivalOf(state, end + (isShort ? 1 : afterName));
    }
    at = close + 2;
  }
}

const hash = 35;
const afterName = ',"t1":'.length;

/** Reads `t1` at a place in a state. */
function arrivalOf(state: string, at: number): number {
  return Number.parseFloat(state.slice(at, at + 25));
}

function keptRuns(histories: ValuesDraft["histories"], spec: AttributeSpec, atMs: number): Piece[] {
  const { runs, cut } = histories.get(spec.id) ?? noHistory;
  return [...keepNewest(historyRuleOf(spec), runs, atMs, cut).runs].sort(compareStarts);
}

/** All that is stored, as `MasterRecord` in JSON text. */
function writeMaster({ spec, plain, plainAt, histories }: ValuesDraft, atMs: number): string {
  const members = spec.attributeList.flatMap((attribute) => {
    const { id, kind, index } = attribute;
    if (kind === "plain") {
      return plain[index] === undefined ? [] : [`"${id}":{"v":${plain[index]},"at":${plainAt?.[index] ?? atMs}}`];
    }
    const points = keptRuns(histories, attribute, atMs).map((run) => {
      const c = kind === "timeseries" ? "" : `,"c":${confidenceOf(run)}`;
      return `{"t1":${run.t1},"t2":${run.t2},"v":${run.value}${c}}`;
    });
    return points.length === 0 ? [] : [`"${id}":[${points.join(",")}]`];
  });
  return `{${members.join(",")}}`;
}
