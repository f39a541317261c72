import { StarlingError } from "../proto/starling-error.ts";
import { type ActorAddress, actorType, type BehaviourSpec, messageAttr, singletonKey, stateAttr } from "./behaviour.ts";
import { checkDatapointOf, checkEid } from "./check-datapoint.ts";
import { checkTask } from "./check-task.ts";
import type { DataType } from "./data-type.ts";
import type { CheckedTask } from "./datapoint.ts";
import { didYouMean } from "./did-you-mean.ts";
import { canonicalJson, isPlainObject } from "./json-value.ts";
import type { AttributeSpec, EntitySpec, Model } from "./model.ts";
import { showFound } from "./show-found.ts";

/**
 * The model with a type for each behaviour, behind the types of the configuration: so log, flush, activation, mailbox and
 * outbox take actors as they take entities. The hash stays, since nothing changes in what a datapoint means.
 */
export function modelWithBehaviours(model: Model, behaviours: readonly BehaviourSpec[]): Model {
  const entities = new Map(model.entities);
  for (const { type, module, singleton } of behaviours) {
    entities.set(type, createSpec(type, entities.size, singleton, `behaviour of module ${module}`));
  }
  return { entities, hash: model.hash };
}

/**
 * A message as a task for its actor. Raises NOT_FOUND for a behaviour that no module registers, INVALID_ARGUMENT,
 * INVALID_VALUE, INVALID_EID, TOO_LARGE, and for an entity whatever `checkTask` raises.
 */
export function checkSend(model: Model, to: unknown, message: unknown): CheckedTask {
  if (!isPlainObject(to)) throw invalid(`an address must be an object: found ${showFound(to)}`);
  if (to.type !== undefined) {
    if (!isPlainObject(message)) throw invalid(`an entity takes a task: found ${showFound(message)}`);
    return checkTask(model, { ...message, type: to.type, eid: to.eid });
  }
  const { spec, key } = actorOf(model, to);
  const eid = checkEid(spec, key);
  const datapoint = checkDatapointOf(spec, eid, { attr: messageAttr, v: message ?? null });
  return { entity: spec, eid: key, eidValue: eid, datapoints: [datapoint], ttlTokens: null, delete: false };
}

function actorOf(model: Model, to: Readonly<Record<string, unknown>>): { spec: EntitySpec; key: string } {
  const singleton = to.singleton !== undefined;
  const name = singleton ? to.singleton : to.behaviour;
  const key = singleton ? singletonKey : to.key;
  if (typeof name !== "string" || typeof key !== "string") {
    throw invalid(`an address is { behaviour, key }, { singleton } or { type, eid }: found ${showFound(to)}`);
  }
  const spec = model.entities.get(actorType(name, singleton));
  if (spec !== undefined) return { spec, key };
  const kind = singleton ? "singleton" : "behaviour";
  const known = [...model.entities.values()].filter(({ actor }) => actor === kind);
  const hint = didYouMean(
    name,
    known.map(({ name: one }) => one),
  );
  throw new StarlingError("NOT_FOUND", `no module registers a ${kind} '${name}'${hint}`);
}

/** An address as the error texts and logs show it. */
export function describeAddress(to: ActorAddress): string {
  if ("singleton" in to) return `singleton ${to.singleton}`;
  return "behaviour" in to ? `behaviour ${to.behaviour} ${to.key}` : `${to.type} ${to.eid}`;
}

/** Any JSON value. */
const anyJson: DataType = {
  text: "any JSON value",
  fingerprint: "any",
  link: null,
  check: (input) => canonicalJson(input, 0),
  write: (value) => JSON.stringify(value),
  read: (json) => JSON.parse(json),
};

function createSpec(id: string, index: number, singleton: boolean, description: string): EntitySpec {
  const attributeList = [stateAttr, messageAttr].map(createAttribute);
  return {
    id,
    index,
    idDataType: "string",
    name: id.replace(/^@+/, ""),
    snapshot: false,
    description,
    lifetime: { type: "immortal" },
    attributes: new Map(attributeList.map((spec) => [spec.id, spec])),
    attributeList,
    actor: singleton ? "singleton" : "behaviour",
  };
}

function createAttribute(id: string, index: number): AttributeSpec {
  return {
    ...{ id, index, kind: "plain", name: id, description: "", dataType: anyJson, editable: false, ttlMs: 0 },
    ...{ relation: null, readOnly: false, confidence: false, multiValue: false, historyForceGraph: false },
    ...{ history: null, timeseries: null },
  };
}

function invalid(message: string): StarlingError {
  return new StarlingError("INVALID_ARGUMENT", message);
}
