import type { CheckedTask } from "../../modules/datapoint.ts";
import type { Hook } from "../../modules/hook.ts";
import type { AttributeSpec } from "../../modules/model.ts";
import type { TimeseriesHook } from "../../modules/snapshot-hook.ts";
import type { HookRun } from "../hooks/hook-run.ts";
import { deepFreeze } from "../value-copy.ts";
import { SnapshotCall, type TickScope } from "./snapshot-call.ts";
import { addDatapoints, historyOf, type ValuesDraft } from "./snapshot-values.ts";

/** One call of a timeseries hook; what it derives for its own entity is added to the entity's values before they are told. */
export class TimeseriesCall extends SnapshotCall {
  readonly #draft: ValuesDraft;
  readonly #spec: AttributeSpec;

  constructor(scope: TickScope, hook: Hook, draft: ValuesDraft, spec: AttributeSpec) {
    super(scope, hook, { type: draft.spec.id, eid: draft.eid });
    this.#draft = draft;
    this.#spec = spec;
  }

  attempt(run: HookRun): unknown {
    const history = deepFreeze(historyOf(this.#draft, this.#spec, this.now));
    return (this.hook.run as TimeseriesHook)(this.type, this.#spec.id, history, run);
  }

  answered(): boolean {
    return false;
  }

  apply(tasks: readonly CheckedTask[]): void {
    for (const { entity, eid, datapoints } of tasks) {
      if (entity.id === this.type && eid === this.eid) addDatapoints(this.#draft, datapoints, this.now);
    }
  }
}
