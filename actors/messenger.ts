import { createHash } from "node:crypto";
import type { ActorAddress } from "../modules/behaviour.ts";
import { checkSend } from "../modules/behaviour-model.ts";
import { checkEid, findEntity } from "../modules/check-datapoint.ts";
import type { CheckedTask } from "../modules/datapoint.ts";
import { eidText } from "../modules/eid.ts";
import type { RecordView } from "../modules/hook.ts";
import { parseJsonText } from "../modules/json-value.ts";
import type { EntitySpec, Model } from "../modules/model.ts";
import type { ModuleActors, SendOptions } from "../modules/module-actors.ts";
import type { Clock } from "../proto/clock.ts";
import { type ErrorCode, StarlingError } from "../proto/starling-error.ts";
import type { Engine, LogPlace } from "./engine.ts";
import { errorOf } from "./lane/message-result.ts";
import { type Part, type PartTask, taskFrom } from "./lane/part.ts";
import { createLineText, writeTask } from "./log/line.ts";
import type { SplitBatch } from "./sessions/batch.ts";
import type { CallChannel, CallSession } from "./sessions/call-session.ts";
import { tokensOf } from "./sessions/session.ts";
import { shardOfType } from "./shard-of-type.ts";

export interface MessengerOptions {
  readonly engine: Pick<Engine, "entityShards" | "systemShards" | "get" | "reply" | "counters">;
  readonly calls: CallSession;
  /** With the types of behaviours: `modelWithBehaviours`. */
  readonly model: Model;
  readonly clock: Clock;
}

export interface MessageOptions {
  readonly deadlineMs: number;
  readonly signal: AbortSignal;
  /** Empty: a message that is sent again is taken again. */
  readonly idempotencyKey: string;
  /** As {@link CallOptions.holder}. */
  readonly holder?: string | null;
}

/**
 * Messages from outside of the log to whoever an address names.
 *
 * `send` is a batch of one part, so that it is accepted when it is in the log, wherever its shard moves meanwhile. `ask`
 * sends, and then asks for what the message at that place comes to: from its owner of the moment, so that a reply
 * survives its owner. With an idempotency key both may be repeated: the place is the first one's, and the reply too.
 */
export interface Messenger {
  /** Where the message stands. Raises as `ModuleActors` does. */
  send(to: unknown, message: unknown, options: MessageOptions): Promise<LogPlace>;
  /** The reply as JSON text. */
  ask(to: unknown, message: unknown, options: MessageOptions): Promise<string>;
}

/** A messenger over an engine. */
export function createMessenger(options: MessengerOptions): Messenger {
  const { engine, calls, model, clock } = options;
  const send = async (task: CheckedTask, call: MessageOptions): Promise<LogPlace> => {
    const message = writeMessage(task);
    const options = { ...call, level: "durable", hash: message.hash } as const;
    const batch = await calls.send((channel) => splitMessage(engine, message, channel), options);
    const [refused] = batch.rejections;
    if (refused !== undefined) throw new StarlingError(refused.code as ErrorCode, refused.message);
    const [place] = tokensOf(batch);
    if (place === undefined) throw new StarlingError("INTERNAL", "a message is durable without a place");
    return place;
  };
  return {
    send: async (to, message, call) => {
      const task = checkSend(model, to, message);
      engine.counters.add("actor_sends");
      return send(task, call);
    },
    ask: async (to, message, call) => {
      const entity = entityOf(model, to);
      engine.counters.add("actor_asks");
      if (entity !== null) return askEntity(engine, entity);
      const until = clock.now() + call.deadlineMs;
      const place = await send(checkSend(model, to, message), call);
      const result = await engine.reply(place, Math.max(0, until - clock.now()));
      if (result.kind === "failure") throw errorOf(result);
      return result.reply;
    },
  };
}

/** What modules are given: values in place of texts, and defaults. */
export function createModuleActors(messenger: Messenger): ModuleActors {
  const callOf = ({ deadlineMs = 10_000, idempotencyKey = "" }: SendOptions = {}): MessageOptions => ({
    ...{ deadlineMs, idempotencyKey, signal: new AbortController().signal },
  });
  return {
    send: async (to, message, options) => void (await messenger.send(to, message, callOf(options))),
    ask: async (to, message, options) => parseJsonText(await messenger.ask(to, message, callOf(options))),
  };
}

interface AskedEntity {
  readonly spec: EntitySpec;
  readonly eid: string;
}

/** Null: the address is an actor's. */
function entityOf(model: Model, to: unknown): AskedEntity | null {
  const { type, eid } = (to ?? {}) as Partial<Extract<ActorAddress, { type: string }>>;
  if (type === undefined) return null;
  const spec = findEntity(model, type);
  if (spec.actor !== undefined) throw new StarlingError("UNKNOWN_TYPE", `no entity type '${type}'`);
  return { spec, eid: eidText(spec, checkEid(spec, eid)) };
}

async function askEntity(engine: MessengerOptions["engine"], { spec, eid }: AskedEntity): Promise<string> {
  const record = await engine.get(spec.id, eid, null);
  return record === null ? "null" : valuesJson(spec, record.view);
}

/** `{"attr": value}` of a record. */
function valuesJson(spec: EntitySpec, view: RecordView): string {
  const members = view.attributes().map((name) => {
    const value = view.value(name) ?? null;
    const text = spec.attributes.get(name)?.dataType?.write(value) ?? JSON.stringify(value);
    return `${JSON.stringify(name)}:${text}`;
  });
  return `{${members.join(",")}}`;
}

/** Rough size in memory of a task and its part, and of a datapoint beside its value. */
const partBytes = 350;
const datapointBytes = 150;

interface Message {
  readonly task: PartTask;
  readonly hash: string;
}

function writeMessage(checked: CheckedTask): Message {
  const task = taskFrom(checked, null);
  const text = createLineText();
  writeTask(task, text, "\n");
  return { task, hash: createHash("sha256").update(text.pieces.join("")).digest("hex").slice(0, 16) };
}

function splitMessage(
  { entityShards, systemShards }: MessengerOptions["engine"],
  { task, hash }: Message,
  { channel, number }: CallChannel,
): SplitBatch {
  const shard = shardOfType(task.entity.id, task.eid, { entityShards, systemShards });
  const bytes = task.datapoints.reduce((sum, { json }) => sum + datapointBytes + json.length, partBytes);
  const rejections: Part["rejections"] = [];
  const at = { position: 0, shard, channel, number, predecessor: null, hash };
  const part: Part = { kind: "part", ...at, tasks: [task], rejections, bytes };
  // A refusal of the part speaks for each of its items: there is at least one.
  const items = Math.max(1, task.datapoints.length);
  const size = { bytes, items, accepted: items, partOf: new Int32Array(items), whole: false };
  return { number, ...size, parts: [part], rejections };
}
