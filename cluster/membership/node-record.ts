import { toNodeId } from "../../proto/ids.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import type { NodeRecord, NodeState } from "./membership.ts";

/** A record as text: the same record is always the same text. */
export function writeNodeRecord(record: NodeRecord): string {
  const { id, name, address, version, protocolMin, protocolMax, modelHash, state, parts } = record;
  return JSON.stringify({ id, name, address, version, protocolMin, protocolMax, modelHash, state, parts });
}

/**
 * Reads what {@link writeNodeRecord} wrote, on this version or another one: unknown fields are ignored. Raises
 * INVALID_ARGUMENT.
 */
export function parseNodeRecord(text: string): NodeRecord {
  const fields = parseObject(text);
  const record: NodeRecord = {
    id: toNodeId(textOf(fields, "id")),
    name: textOf(fields, "name"),
    address: textOf(fields, "address"),
    version: textOf(fields, "version"),
    protocolMin: versionOf(fields, "protocolMin"),
    protocolMax: versionOf(fields, "protocolMax"),
    modelHash: textOf(fields, "modelHash"),
    state: stateOf(fields.state),
    ...(fields.parts !== undefined && { parts: partsOf(fields.parts) }),
  };
  if (!/^.+:\d{1,5}$/.test(record.address)) throw invalid(`address ${record.address} is not host:port`);
  if (record.protocolMin > record.protocolMax) throw invalid("protocolMin is above protocolMax");
  return record;
}

const states: readonly NodeState[] = ["joining", "serving", "ailing", "leaving"];
const textMaxLength = 1024;

function parseObject(text: string): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return { ...value };
  } catch (cause) {
    throw new StarlingError("INVALID_ARGUMENT", "a node's record is not JSON", { cause });
  }
  throw invalid("it is no object");
}

function textOf(fields: Readonly<Record<string, unknown>>, name: string): string {
  const value = fields[name];
  if (typeof value === "string" && value.length > 0 && value.length <= textMaxLength) return value;
  throw invalid(`${name} is missing, or no text of 1 to ${textMaxLength} characters`);
}

function versionOf(fields: Readonly<Record<string, unknown>>, name: string): number {
  const value = fields[name];
  if (typeof value === "number" && Number.isSafeInteger(value) && value >= 0) return value;
  throw invalid(`${name} is missing, or no whole number`);
}

function partsOf(value: unknown): Readonly<Record<string, string>> {
  const entries = typeof value === "object" && value !== null ? Object.entries(value) : [];
  return Object.fromEntries(entries.filter((entry): entry is [string, string] => typeof entry[1] === "string"));
}

function stateOf(value: unknown): NodeState {
  const state = states.find((known) => known === value);
  if (state === undefined) throw invalid(`state ${String(value)} is none of ${states.join(", ")}`);
  return state;
}

function invalid(problem: string): StarlingError {
  return new StarlingError("INVALID_ARGUMENT", `a node's record cannot be read: ${problem}`);
}
