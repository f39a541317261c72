import type { CheckedTask } from "../../modules/datapoint.ts";
import type { Hook } from "../../modules/hook.ts";
import {
  type FindEntity,
  LinkedView,
  type LinkTree,
  type LiveChange,
  planLinkTree,
} from "../../modules/linked-view.ts";
import type { CorrelationHook, CorrelationHookWithMasterRecord } from "../../modules/snapshot-hook.ts";
import { readMaster } from "../history/entity-at.ts";
import type { HookRun } from "../hooks/hook-run.ts";
import { applyChanges, type Live, withValues } from "./live-entity.ts";
import { SnapshotCall, type TickScope } from "./snapshot-call.ts";
import type { HookReport } from "./snapshot-report.ts";

/** What a hook of the graph reads and may change, as its calls need it. */
export interface GraphPlan {
  readonly tree: LinkTree;
  /** As `type.attr`. */
  readonly declared: ReadonlySet<string>;
}

/** The plan of a hook; made once for each. */
export function graphPlanOf({ reach, id }: Hook): GraphPlan {
  if (reach === undefined) throw new Error(`hook ${id} is not in the hook graph`);
  let plan = plans.get(reach);
  if (plan === undefined) {
    plan = { tree: planLinkTree(reach), declared: new Set(reach.mayChange.map(({ end }) => end)) };
    plans.set(reach, plan);
  }
  return plan;
}

const plans = new WeakMap<object, GraphPlan>();

/** One call of a correlation hook. */
export class CorrelationCall extends SnapshotCall {
  readonly #entity: Live;
  readonly #find: FindEntity<Live>;
  #view: LinkedView<Live> | null = null;
  #changes: readonly LiveChange<Live>[] = [];

  constructor(scope: TickScope, hook: Hook, entity: Live, find: FindEntity<Live>) {
    super(scope, hook, { type: entity.at.spec.id, eid: entity.at.eid });
    this.#entity = entity;
    this.#find = find;
  }

  attempt(run: HookRun): unknown {
    this.#view = new LinkedView(this.#entity, graphPlanOf(this.hook).tree, this.#find);
    const { values } = this.#view;
    if (this.hook.kind === "correlation") return (this.hook.run as CorrelationHook)(this.type, values, run);
    const hook = this.hook.run as CorrelationHookWithMasterRecord;
    return hook(this.type, values, readMaster(this.#entity.at), run);
  }

  answered(): boolean {
    this.#changes = withValues(this.#view?.changes() ?? []);
    this.#view = null;
    return this.#changes.length > 0;
  }

  apply(_tasks: readonly CheckedTask[], own: HookReport): void {
    applyChanges(this.#changes, graphPlanOf(this.hook).declared, own);
  }
}
