import type { Hook, HookKind } from "../../modules/hook.ts";
import type { Model } from "../../modules/model.ts";
import type { Counter, Counters } from "../counters.ts";
import { type Histogram, shortSecondsBounds } from "../histogram.ts";

/** The counters of one hook, as DP³ names them (reference 12): `secondary_hooks/<family>/<callable>/<context>/<metric>`. */
export interface HookCounters {
  /** Attempts. */
  readonly executions: Counter;
  /** Attempts that failed. */
  readonly failures: Counter;
  readonly durationNs: Counter;
  /** Of an attempt; of synchronous ones a sample. */
  readonly seconds: Histogram;
  readonly createdTasks: Counter;
  readonly allowed: Counter;
  readonly denied: Counter;
}

/** The counters of a hook, looked up once. */
export function createHookCounters(counters: Counters, model: Model, hook: Hook): HookCounters {
  const parts = [familyOf(model, hook), `${hook.module}.${hook.name}`, contextOf(hook)].map(quote);
  const path = `secondary_hooks/${parts.join("/")}`;
  const counter = (metric: string) => counters.counter(`${path}/${metric}`);
  return {
    executions: counter("executions"),
    failures: counter("failures"),
    durationNs: counter("duration_ns"),
    seconds: counters.histogram(path, shortSecondsBounds),
    createdTasks: counter("created_tasks"),
    allowed: counter("decisions_allowed"),
    denied: counter("decisions_denied"),
  };
}

function familyOf(model: Model, hook: Hook): string {
  if (hook.kind !== "on_new_attr") return families.get(hook.kind) ?? hook.kind;
  const kind = model.entities.get(hook.type ?? "")?.attributes.get(hook.attr ?? "")?.kind;
  if (kind === "plain") return "on_new_plain";
  return kind === "timeseries" ? "on_new_ts_chunk" : "on_new_observation";
}

/** Where DP³'s name is another one. */
const families: ReadonlyMap<HookKind, string> = new Map([
  ["timeseries", "snapshot_timeseries"],
  ["correlation", "snapshot_correlation"],
  ["correlation_with_master_record", "snapshot_correlation"],
  ["snapshot_init", "snapshot_run_init"],
  ["snapshot_finalize", "snapshot_run_finalize"],
]);

function contextOf(hook: Hook): string {
  return `(${[hook.type, hook.attr].filter((part) => part !== null).join(",")})`;
}

/** URL quoting that keeps `._-(),[]`. */
function quote(part: string): string {
  return encodeURIComponent(part)
    .replace(/[!'*~]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`)
    .replace(/%(2C|5B|5D)/g, (quoted) => decodeURIComponent(quoted));
}
