import type { CheckedDatapoint, Value } from "../modules/datapoint.ts";
import { eidText } from "../modules/eid.ts";
import type { AttributeSpec, Model } from "../modules/model.ts";
import type { Span } from "./link-change.ts";
import type { PartTask } from "./part.ts";

/** What becomes of one link of an entity. */
export interface LinkStep {
  readonly attr: string;
  /** The target. */
  readonly type: string;
  readonly eid: string;
  /** A plain link is there or gone; an observed one was there for a time. */
  readonly change: "there" | "gone" | Span;
}

type LinkTask = Pick<PartTask, "datapoints" | "link">;
type CurrentValue = (spec: AttributeSpec) => Value | undefined;

/** Whether a task may change links of its entity: looked at for every task, so it looks at little. */
export function touchesLinks({ datapoints, link }: LinkTask): boolean {
  if (link) return link.kind === "unlink";
  for (const { spec } of datapoints) if (spec.relation !== null) return true;
  return false;
}

/**
 * What a task changes in the links of its entity, whose values before it `current` gives. Of plain links the difference; of
 * observed ones every time that is told of with any confidence.
 */
export function planLinks(model: Model, attributes: Attributes, task: LinkTask, current: CurrentValue): LinkStep[] {
  const { link } = task;
  if (link?.kind === "unlink") return planUnlink(model, attributes.get(link.attr), link, current);
  const steps: LinkStep[] = [];
  const plain = new Map<AttributeSpec, CheckedDatapoint>();
  for (const datapoint of task.datapoints) {
    const { spec, v, t1, t2, c } = datapoint;
    if (spec.relation === null) continue;
    if (spec.kind === "plain") plain.set(spec, datapoint);
    else if (c > 0 && t1 !== null) {
      const span = { from: Math.floor(t1), to: Math.ceil(t2 ?? t1) };
      for (const eid of targetsOf(model, spec, v)) steps.push(step(spec, eid, span));
    }
  }
  for (const [spec, { v }] of plain) steps.push(...difference(model, spec, current(spec), v));
  return steps;
}

type Attributes = ReadonlyMap<string, AttributeSpec>;

/** A value of an attribute without one target; undefined: nothing is left. An observed list goes as a whole. */
export function withoutTarget(model: Model, spec: AttributeSpec, value: Value, eid: string): Value | undefined {
  if (!targetsOf(model, spec, value).has(eid)) return value;
  if (spec.kind !== "plain" || !Array.isArray(value)) return undefined;
  const rest = value.filter((one: Value) => !targetsOf(model, spec, one).has(eid));
  return rest.length === 0 ? undefined : rest;
}

function planUnlink(
  model: Model,
  spec: AttributeSpec | undefined,
  { type, eid }: { readonly type: string; readonly eid: string },
  current: CurrentValue,
): LinkStep[] {
  if (spec?.relation?.target !== type) return [];
  // Which times were observed only the table knows.
  if (spec.kind !== "plain") return [step(spec, eid, "gone")];
  const value = current(spec);
  return value !== undefined && targetsOf(model, spec, value).has(eid) ? [step(spec, eid, "gone")] : [];
}

function difference(model: Model, spec: AttributeSpec, before: Value | undefined, after: Value): LinkStep[] {
  const old = before === undefined ? none : targetsOf(model, spec, before);
  const fresh = targetsOf(model, spec, after);
  const gone = [...old].filter((eid) => !fresh.has(eid)).map((eid) => step(spec, eid, "gone"));
  const there = [...fresh].filter((eid) => !old.has(eid)).map((eid) => step(spec, eid, "there"));
  return [...gone, ...there];
}

const none: ReadonlySet<string> = new Set();

/** The targets that a checked value names, as canonical eids. */
function targetsOf(model: Model, { relation }: AttributeSpec, value: Value): ReadonlySet<string> {
  const target = relation && model.entities.get(relation.target);
  if (!target) return none;
  const links = (Array.isArray(value) ? value : [value]) as readonly { readonly eid: string | number | bigint }[];
  return new Set(links.map(({ eid }) => eidText(target, eid)));
}

function step({ id, relation }: AttributeSpec, eid: string, change: LinkStep["change"]): LinkStep {
  return { attr: id, type: relation?.target ?? "", eid, change };
}
