import type { HookCall } from "../../../actors/hooks/hook-call.ts";
import type { HookOutcome } from "../../../actors/hooks/hook-outcome.ts";
import type { Store } from "../../../actors/store/store.ts";
import type { CheckedDatapoint, CheckedTask } from "../../../modules/datapoint.ts";
import type { Hook, HookTable } from "../../../modules/hook.ts";
import { shardId, toSeq } from "../../../proto/ids.ts";
import { shardOf } from "../../../proto/shard-of.ts";
import { fieldsOf, type StateField } from "../../support/state-fields.ts";
import { testModel } from "../../support/test-model.ts";

/**
 * Thirty batches over two entity types, with hooks that derive for the own entity, for others, and late; and what must be
 * true of the store afterwards, whatever died on the way.
 */
export const model = testModel({
  src: {
    a: { kind: "plain", type: "int" },
    o: { kind: "observations", type: "int" },
    own: { kind: "plain", type: "int" },
  },
  dst: { seen: { kind: "observations", type: "int" }, late: { kind: "plain", type: "int" } },
});

export const shards = 4;
const sources = 6;

/** The task of one datapoint, as the edge would have made it. */
export function task(type: string, eid: string, attr: string, v: number, t1: number | null = null): CheckedTask {
  const entity = model.entities.get(type);
  const spec = entity?.attributes.get(attr);
  if (entity === undefined || spec === undefined) throw new Error(`no ${type}.${attr} in the test's model`);
  const datapoint: CheckedDatapoint = {
    spec,
    type,
    eid,
    attr,
    v,
    json: String(v),
    t1,
    t2: t1,
    c: 1,
    src: null,
    line: null,
  };
  return { entity, eid, eidValue: eid, datapoints: [datapoint], ttlTokens: null, delete: false };
}

/** The task that deletes an entity. */
export function removal(type: string, eid: string): CheckedTask {
  const entity = model.entities.get(type);
  if (entity === undefined) throw new Error(`no ${type}`);
  return { entity, eid, eidValue: eid, datapoints: [], ttlTokens: null, delete: true };
}

/** The batch that deletes an entity; it is sent when all before it is quiet, so that its place in the order is known. */
export const removalAt = 18;

/** The client's batches: each a list of tasks. Values are unique, so that a value names its datapoint. */
export const batches: readonly (readonly CheckedTask[])[] = Array.from({ length: 30 }, (_, i) => {
  const eid = `s${i % sources}`;
  const other = `s${(i * 5 + 2) % sources}`;
  if (i === removalAt) return [removal("src", eid)];
  const tasks = [task("src", eid, "a", 1000 + i), task("src", other, "o", 2000 + i, 1_000_000 + i)];
  return eid === other ? tasks.slice(0, 1) : tasks;
});

/** A hook of the test's own; what it does says `runHook`. */
export function hook(kind: Hook["kind"], type: string, attr: string | null, name: string): Hook<never> {
  const target = attr === null ? type : `${type}.${attr}`;
  const run = (() => null) as never;
  return {
    id: `test/${kind}/${target}/${name}`,
    module: "test",
    kind,
    type,
    attr,
    name,
    run,
    concurrency: 1,
    timeoutMs: 1000,
    retries: 0,
  };
}

export const hooks: HookTable = {
  onTaskStart: [],
  allowEntityCreation: new Map([["src", [hook("allow_entity_creation", "src", null, "allow")]]]),
  onEntityCreation: new Map(),
  onNewAttr: new Map([
    [
      "src",
      new Map([
        ["a", [hook("on_new_attr", "src", "a", "own"), hook("on_new_attr", "src", "a", "other")]],
        ["o", [hook("on_new_attr", "src", "o", "late")]],
      ]),
    ],
  ]),
};

/** Every datapoint of `a` gives the same entity `own`, and `seen` to two others; every `o` gives `late`, later. */
export function runHook(called: Hook, call: HookCall): HookOutcome | Promise<HookOutcome> {
  if (called.name === "allow") return { kind: "decision", allowed: call.eid !== "s5" };
  const v = Number(call.datapoint?.v);
  if (called.name === "own") return { kind: "answer", tasks: [task("src", String(call.eid), "own", v + 10_000)] };
  if (called.name === "other") {
    const targets = [`d${v % 3}`, `d${(v + 1) % 3}`];
    return { kind: "answer", tasks: targets.map((eid, i) => task("dst", eid, "seen", v * 10 + i, 5_000_000 + v)) };
  }
  return Promise.resolve({ kind: "answer", tasks: [task("dst", `d${v % 3}`, "late", v + 20_000)] });
}

export interface Found {
  /** `type eid attr value` of every datapoint in the log, with how often it is there. */
  readonly logged: Map<string, number>;
  /** `type eid attr` to the newest value. */
  readonly state: Map<string, string>;
}

/** Line by line, to be compared. */
export function writeFound({ logged, state }: Found): string {
  const lines = [...logged].map(([key, times]) => `log ${key} × ${times}`);
  return [...lines, ...[...state].map(([key, value]) => `state ${key} ${value}`)].sort().join("\n");
}

/** What one run without any death leaves; every other run must leave the same. */
export async function inspect(store: Store): Promise<Found> {
  const logged = new Map<string, number>();
  const state = new Map<string, string>();
  const keys = new Set<string>();
  for (let i = 0; i < shards; i++) {
    for (const segment of await store.readLog(shardId("entity", i), toSeq(0), 100_000)) {
      for (const line of segment.body.split("\n")) {
        const [kind, type = "", eid = "", attr, , , , , json] = line.split("\t");
        if (kind !== "d" && kind !== "+") continue;
        const key = `${type} ${eid} ${attr} ${json}`;
        logged.set(key, (logged.get(key) ?? 0) + 1);
        keys.add(`${type} ${eid}`);
      }
    }
  }
  for (const key of keys) {
    const [type = "", eid = ""] = key.split(" ");
    const [stored] = await store.load([{ shard: shardOf("entity", type, eid, shards), type, eid }]);
    if (stored === undefined || stored.tombstone) continue;
    const fields = fieldsOf<StateField<number>>(stored.state);
    for (const [attr, { v, n }] of Object.entries(fields)) {
      // Answers of different shards may reach a plain attribute in any order: only their number is known.
      state.set(`${key} ${attr}`, attr === "late" ? `${n}` : `${v} of ${n}`);
    }
  }
  return { logged, state };
}
