import type { CheckedTask, DataPointTask, Datapoint, Value } from "../../modules/datapoint.ts";
import { readEid } from "../../modules/eid.ts";
import type { EntityCreationHook, Hook, LatestValue, NewAttrHook, RecordView } from "../../modules/hook.ts";
import type { EntityAt } from "../history/entity-at.ts";
import { graphPlanOf } from "../snapshots/correlation-call.ts";
import { applyChanges, hasMany, type Live } from "../snapshots/live-entity.ts";
import { SnapshotCall, type TickScope } from "../snapshots/snapshot-call.ts";
import type { HookReport } from "../snapshots/snapshot-report.ts";
import type { HookRun } from "./hook-run.ts";

/** One current value of an attribute, as the hook of an attribute gets it anew. */
export interface RefreshSubject {
  readonly datapoint: Datapoint | null;
  /** Its place among those of the entity. */
  readonly place: number;
}

/**
 * A hook of the ingestion that derives its values anew because its module's configuration has changed: that of a creation with
 * a task without datapoints, that of an attribute once for each of its current values. Plain values for the entity itself stand
 * in this very snapshot, as far as they were declared; all tasks are processed as well.
 */
export class RefreshCall extends SnapshotCall {
  readonly #entity: Live;
  readonly #subject: RefreshSubject;

  constructor(scope: TickScope, hook: Hook, entity: Live, subject: RefreshSubject) {
    super(scope, hook, { type: entity.at.spec.id, eid: entity.at.eid });
    this.#entity = entity;
    this.#subject = subject;
  }

  override get key(): string {
    return `${super.key}-${this.#subject.place}`;
  }

  override get record(): RecordView {
    return viewOf(this.#entity, this.now);
  }

  attempt(run: HookRun): unknown {
    const eid = readEid(this.#entity.at.spec, this.eid);
    const { datapoint } = this.#subject;
    if (datapoint !== null) return (this.hook.run as NewAttrHook)(eid, datapoint, run);
    const task: DataPointTask = { type: this.type, eid, datapoints: [] };
    return (this.hook.run as EntityCreationHook)(eid, task, run);
  }

  answered(): boolean {
    return false;
  }

  apply(tasks: readonly CheckedTask[], report: HookReport): void {
    const entity = this.#entity;
    const own = tasks.filter((task) => task.entity.id === this.type && task.eid === this.eid);
    const plain = own.flatMap(({ datapoints }) => datapoints.filter(({ spec }) => spec.kind === "plain"));
    const changes = plain.map(({ attr, v }) => ({ entity, name: attr, value: v }));
    applyChanges(changes, graphPlanOf(this.hook).declared, report);
  }
}

/** What a refresh hook is called for, about one entity. */
export function refreshSubjects(hook: Hook, entity: Live): RefreshSubject[] {
  if (hook.kind === "on_entity_creation") return [{ datapoint: null, place: 0 }];
  const spec = entity.at.spec.attributes.get(hook.attr ?? "");
  const value = spec && (entity.values[spec.id] as Value | undefined);
  if (spec === undefined || value === undefined) return [];
  const values = hasMany(spec) ? (value as readonly Value[]) : [value];
  const spans = spansOf(entity.at, spec.id);
  const cs = [entity.values[`${spec.id}#c`]].flat() as number[];
  return values.map((v, place) => {
    const [t1 = null, t2 = null] = spans[place] ?? [];
    const eid = entity.values.eid;
    return {
      place,
      datapoint: { type: entity.at.spec.id, eid, attr: spec.id, v, t1, t2, c: cs[place] ?? 1, src: null },
    };
  });
}

type Span = readonly [number, number];

function spansOf({ spans }: EntityAt, attr: string): readonly Span[] {
  return spans === null ? [] : ((JSON.parse(spans) as Record<string, Span[]>)[attr] ?? []);
}

function viewOf({ values, at: { spec } }: Live, at: number): RecordView {
  const value = (attr: string): Value | undefined => {
    const found = values[attr] as Value | undefined;
    const attribute = spec.attributes.get(attr);
    if (attribute === undefined || found === undefined || !hasMany(attribute)) return found;
    return (found as readonly Value[]).at(-1);
  };
  const latest = (attr: string): LatestValue | undefined => {
    const v = value(attr);
    const c = [values[`${attr}#c`] ?? 1].flat().at(-1) as number;
    return v === undefined ? undefined : { v, t1: at, t2: at, c, count: 1 };
  };
  const attributes = () => spec.attributeList.map(({ id }) => id).filter((id) => values[id] !== undefined);
  return { type: spec.id, eid: values.eid, value, latest, attributes };
}
