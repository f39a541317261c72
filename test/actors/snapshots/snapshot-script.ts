import type { RecordAt } from "../../../actors/snapshots/snapshot-values.ts";
import type { Value } from "../../../modules/datapoint.ts";
import type { CallbackRegistrar } from "../../../modules/registrar.ts";
import type { CorrelationHook, LinkedValue, SnapshotValue, SnapshotValues } from "../../../modules/snapshot-hook.ts";
import { configModel } from "../../support/config-model.ts";
import { recordAt, specOf, type Told } from "../../support/record-at.ts";
import { type SnapshotPlay, snapshotScope } from "../../support/snapshot-play.ts";

/** What the tests of hooks in snapshots play with. */
export const model = configModel({
  route: {
    origin: "plain link<airport; mirror=departing>",
    via: "observations array<link<airport>>; multi_value: true, history_params: {post_validity: 1m}",
    back: "plain link<route>",
    delay: "observations int; history_params: {post_validity: 10s}",
    risk: "plain float",
    note: "plain string",
    seen: "plain json",
    flights: "timeseries",
  },
  airport: { state: "plain string", region: "plain link<region>", load: "plain int" },
  region: { "#": "snapshot: no", name: "plain string", alarm: "plain int" },
  lone: { x: "plain int", y: "plain int", z: "plain int", tags: "observations string; multi_value: true" },
});

export type Door = CallbackRegistrar;
type Paths = readonly (readonly string[])[];

/** Registers a correlation hook. */
export const reads = (
  door: Door,
  type: string,
  hook: CorrelationHook,
  dependsOn: Paths,
  mayChange: Paths,
  name = "hook",
) => door.registerCorrelationHook(hook, type, { name, dependsOn, mayChange });

/** Sets an attribute to what is made of the values. */
export const sets =
  (attr: string, of: (values: SnapshotValues) => SnapshotValue): CorrelationHook =>
  (_, values) => {
    values[attr] = of(values);
    return null;
  };

const told = (values: Readonly<Record<string, Value>>): Told[] =>
  Object.entries(values).map(([attr, v]) => ({ attr, v, t1: 0, t2: 10_000 }));
/** What is stored of an entity; observations are of the first ten seconds. */
export const record = (type: string, eid: string, values: Readonly<Record<string, Value>> = {}): RecordAt =>
  recordAt(specOf(model, type), eid, plainTold(type, values));

/** Times for observations only. */
function plainTold(type: string, values: Readonly<Record<string, Value>>): Told[] {
  return told(values).map(({ attr, v, t1, t2 }) =>
    specOf(model, type).attributes.get(String(attr))?.kind === "plain" ? { attr, v } : { attr, v, t1, t2 },
  );
}

/** The hooks of a module. */
export const play = (register: (door: Door) => void, more: Partial<SnapshotPlay> = {}) =>
  snapshotScope({ model, register, ...more });

export const linkOf = (values: SnapshotValues, attr: string) => values[attr] as LinkedValue | undefined;
export const linksOf = (values: SnapshotValues, attr: string) => (values[attr] ?? []) as readonly LinkedValue[];
