import type { Hook } from "../../modules/hook.ts";
import type { SnapshotFinalizeHook, SnapshotInitHook } from "../../modules/snapshot-hook.ts";
import type { HookRun } from "../hooks/hook-run.ts";
import { callAll, type HookYield, SnapshotCall, type TickScope } from "./snapshot-call.ts";
import type { SnapshotReport } from "./snapshot-report.ts";

/** One call of a hook that runs once on every node of a tick. */
class NodeHookCall extends SnapshotCall {
  constructor(scope: TickScope, hook: Hook) {
    super(scope, hook, { type: "", eid: "" });
  }

  override get key(): string {
    return `${this.scope.tick}-${this.hook.id}`;
  }

  attempt(run: HookRun): unknown {
    return (this.hook.run as SnapshotInitHook | SnapshotFinalizeHook)(run);
  }

  answered(): boolean {
    return false;
  }

  apply(): void {}
}

/** Calls hooks of the node one after another. Returns what each has answered; one that failed, nothing. */
export async function callNodeHooks(scope: TickScope, hooks: readonly Hook[]) {
  const report: SnapshotReport = new Map();
  const answers: { readonly hook: string; readonly tasks: HookYield["tasks"] }[] = [];
  for (const hook of hooks) {
    const done: HookYield = { tasks: [], report };
    await callAll(scope, hook, [new NodeHookCall(scope, hook)], done);
    answers.push({ hook: hook.id, tasks: done.tasks });
  }
  return { report, answers };
}
