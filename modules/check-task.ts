import { StarlingError } from "../proto/starling-error.ts";
import { checkDatapointOf, checkEid, findEntity } from "./check-datapoint.ts";
import type { CheckedDatapoint, CheckedTask, Eid } from "./datapoint.ts";
import { eidText } from "./eid.ts";
import { isPlainObject } from "./json-value.ts";
import type { EntitySpec, Model } from "./model.ts";
import { showFound } from "./show-found.ts";
import { timeForms, unixMs } from "./time-text.ts";

/**
 * The check of a task that a hook returned or a request described: `{ type, eid, datapoints?, ttlTokens?, delete? }`, with
 * at least a datapoint, a TTL token or `delete`. Datapoints may leave out `type` and `eid`, or must agree with the task's.
 * Throws INVALID_ARGUMENT, INVALID_TIME and whatever `checkDatapoint` throws.
 */
export function checkTask(model: Model, loose: unknown): CheckedTask {
  if (!isPlainObject(loose)) throw invalid(`a task must be an object: found ${showFound(loose)}`);
  const entity = findEntity(model, loose.type);
  const eidValue = checkEid(entity, loose.eid);
  const eid = eidText(entity, eidValue);
  const datapoints = checkDatapoints(entity, eidValue, loose.datapoints);
  const ttlTokens = checkTtlTokens(loose.ttlTokens);
  if (loose.delete !== undefined && loose.delete !== null && typeof loose.delete !== "boolean") {
    throw invalid(`delete must be true or false: found ${showFound(loose.delete)}`);
  }
  const deletes = loose.delete === true;
  if (datapoints.length === 0 && ttlTokens === null && !deletes) {
    throw invalid(`a task for ${entity.id} needs at least a datapoint, a TTL token or delete`);
  }
  return { entity, eid, eidValue, datapoints, ttlTokens, delete: deletes };
}

/** The name of a TTL token may not hold what a path or a query would give a meaning to. */
const ttlTokenName = /^[A-Za-z_][A-Za-z0-9_-]{0,254}$/;

function checkDatapoints(entity: EntitySpec, eid: Eid, items: unknown): CheckedDatapoint[] {
  if (items === undefined || items === null) return [];
  if (!Array.isArray(items)) throw invalid(`datapoints must be a list: found ${showFound(items)}`);
  return Array.from(items as unknown[], (item, index) => {
    if (!isPlainObject(item)) throw invalid(`datapoint ${index} must be an object: found ${showFound(item)}`);
    assertSameEntity(entity, eid, item, index);
    const { attr, v, t1, t2, c, src } = item;
    return checkDatapointOf(entity, eid, { attr, v, t1, t2, c, src });
  });
}

function assertSameEntity(entity: EntitySpec, eid: Eid, item: Readonly<Record<string, unknown>>, index: number): void {
  if (item.type !== undefined && item.type !== entity.id) {
    throw invalid(`datapoint ${index} is of type ${showFound(item.type)}, its task of ${entity.id}`);
  }
  if (item.eid !== undefined && item.eid !== eid && checkEid(entity, item.eid) !== eid) {
    throw invalid(`datapoint ${index} has the eid ${showFound(item.eid)}, its task ${showFound(eid)}`);
  }
}

function checkTtlTokens(tokens: unknown): Record<string, number> | null {
  if (tokens === undefined || tokens === null) return null;
  if (!isPlainObject(tokens)) throw invalid(`ttlTokens must be an object: found ${showFound(tokens)}`);
  const names = Object.keys(tokens);
  if (names.length === 0) return null;
  return Object.fromEntries(names.map((name) => [name, checkTtlToken(name, tokens[name])]));
}

function checkTtlToken(name: string, time: unknown): number {
  if (!ttlTokenName.test(name)) {
    throw invalid(`a TTL token is named by letters, digits, _ and -: found ${showFound(name)}`);
  }
  const ms = unixMs(time);
  if (ms !== null) return ms;
  throw new StarlingError(
    "INVALID_TIME",
    `TTL token ${name} is not a time: found ${showFound(time)}; allowed: ${timeForms}`,
  );
}

function invalid(message: string): StarlingError {
  return new StarlingError("INVALID_ARGUMENT", message);
}
