import { actorType } from "../../modules/behaviour.ts";
import { modelWithBehaviours } from "../../modules/behaviour-model.ts";
import type { HookContext, HookTable, ModuleLog } from "../../modules/hook.ts";
import { createRegistrar } from "../../modules/registrar.ts";
import { type ScheduledCallback, type ScheduleRun, scheduleActor } from "../../modules/schedule.ts";
import type { ClientDatapoint } from "../../proto/client-batch.ts";
import type { Clock } from "../../proto/clock.ts";
import { configModel } from "../support/config-model.ts";
import type { Random } from "../support/random.ts";
import { linkHookId, linkTypes, registerLinkHook } from "./link-load.ts";
import { textHash } from "./text-hash.ts";

const observed = "observations string";
const plain = "plain string";
const observedAll = (...attrs: string[]) => Object.fromEntries(attrs.map((attr) => [attr, observed]));

/*
 * What is sent, and what hooks make of it. Every datapoint that is sent has a value of its own, `session:batch:index:flags`,
 * and every derived one begins with its hook's `ctx.key`. The flags say what the hooks do:
 *
 *   l  `late` answers after a while           d  `remove` deletes the entity
 *   o  `late` takes so long that it becomes   p  `remove` deletes the entity's partner, on another shard
 *      an obligation, and `later` is slow,    f  `fragile` fails as long as the world is broken: now and then under faults,
 *      too                                       and not afterwards
 *   b  there is no such attribute: it is      §  the database refuses the value: all that its batch has for the shard is
 *      refused, alone                            refused
 *   q  `fatal` ends its process, until it is given up
 *
 * Of some values `stubborn` makes an answer whose first attempt in a process comes when it has timed out, and mostly after
 * that of the second one.
 *
 * Entities that begin with `no` are never created, and of those that begin with `may` each process thinks otherwise.
 */
export const model = configModel({
  item: { x: observed, order: plain, born: plain, ...linkTypes.item, "#": "snapshot: no" },
  group: { ...observedAll("member", "late", "later", "stubborn", "mended", "births", "tick"), "#": "snapshot: no" },
  world: { sum: observed, "#": "snapshot: no" },
  ...linkTypes.targets,
});

export const hookIds = {
  own: "sim/on_new_attr/item.x/own",
  cross: "sim/on_new_attr/item.x/cross",
  late: "sim/on_new_attr/item.x/late",
  stubborn: "sim/on_new_attr/item.x/stubborn",
  later: "sim/on_new_attr/item.x/later",
  fragile: "sim/on_new_attr/item.x/fragile",
  remove: "sim/on_new_attr/item.x/remove",
  born: "sim/on_entity_creation/item/born",
  sum: "sim/on_new_attr/group.member/sum",
  link: linkHookId,
  fatal: "sim/on_new_attr/item.x/fatal",
} as const;

const groups = 7;
const worlds = 3;

export function isDenied(eid: string): boolean {
  return eid.startsWith("no");
}

/** Who is deleted when `p` is processed. */
export function partnerOf(eid: string): string {
  return `victim-of-${eid}`;
}

/** Whether chance decides on its creation, in each process anew. */
export function isDoubtful(eid: string): boolean {
  return eid.startsWith("may");
}

export interface HookSurroundings {
  readonly clock: Clock;
  readonly log: ModuleLog;
  readonly random: () => number;
  /** Whether fragile hooks fail. */
  readonly isBroken: () => boolean;
  /** Told of a value that ends its process; whether it still does. */
  readonly onFatal: (v: string) => boolean;
  /** Told of a hook that was called as it never should be. */
  readonly onWrongCall: (text: string) => void;
}

/** What an actor keeps: the names of all messages that it took. */
export interface Tally {
  readonly seen: readonly string[];
}

/** The n-th message of a sender. */
export interface TallyMessage {
  readonly sender: string;
  readonly n: number;
}

export const actorKeys = ["a", "b", "c", "d"];
export const tallyType = actorType("tally", false);
const second = scheduleActor("sim", "second");
/** The model, and the types of behaviours. */
export const actorModel = modelWithBehaviours(model, [
  { module: "sim", name: "tally", type: tallyType, singleton: false },
  { module: "sim", name: second, type: actorType(second, true), singleton: true },
]);

/** What a module of one process has registered. */
export interface SimModule {
  readonly hooks: HookTable;
  readonly scheduled: readonly ScheduledCallback[];
}

/** The hooks of one process, its behaviour, and a schedule that is due each second. */
export function createModule(surroundings: HookSurroundings): SimModule {
  const { clock, log, random, isBroken, onFatal, onWrongCall } = surroundings;
  const registrar = createRegistrar(model, { concurrency: 100, timeoutMs: 20_000, retries: 0 });
  const module = registrar.forModule("sim", log, () => ({}));
  const derive = (type: string, eid: string, attr: string, ctx: HookContext, v: string) => {
    const datapoint = { attr, v: `${ctx.key}|${v}` };
    return { type, eid, datapoints: [type === "item" ? datapoint : { ...datapoint, t1: ctx.now }] };
  };
  const groupOf = (text: string): string => `g${textHash(text) % groups}`;
  const rest = (ms: number, signal: AbortSignal): Promise<void> =>
    new Promise((resolve) => {
      const cancel = clock.after(ms, resolve);
      signal.addEventListener("abort", () => {
        cancel();
        resolve();
      });
    });
  const luck = random();
  const allow = (eid: string): boolean => !isDenied(eid) && (!isDoubtful(eid) || textHash(`${eid} ${luck}`) % 2 === 0);
  module.registerAllowEntityCreationHook((eid) => allow(String(eid)), "item", { name: "allow" });
  module.registerOnEntityCreationHook(
    (eid, _, ctx) => [
      derive("item", String(eid), "born", ctx, String(eid)),
      derive("group", groupOf(String(eid)), "births", ctx, String(eid)),
    ],
    "item",
    { name: "born" },
  );
  const on = module.registerOnNewAttrHook;
  const expectLife = (v: string, ctx: HookContext): void => {
    if (ctx.record === null) onWrongCall(`a hook ran for ${v}, which is of a life that has ended`);
  };
  const own = (eid: string, v: string, ctx: HookContext) => {
    expectLife(v, ctx);
    return isOrdered(v) ? [derive("item", eid, "order", ctx, v)] : null;
  };
  on((eid, { v }, ctx) => own(String(eid), String(v), ctx), "item", "x", { name: "own" });
  const cross = (v: string, ctx: HookContext) => (isMember(v) ? [derive("group", groupOf(v), "member", ctx, v)] : null);
  on((_, { v }, ctx) => cross(String(v), ctx), "item", "x", { name: "cross" });
  const late = async (v: string, ctx: HookContext) => {
    expectLife(v, ctx);
    await rest(flagsOf(v).includes("o") ? 900 + (textHash(v) % 600) : textHash(v) % 400, ctx.signal);
    return [derive("group", groupOf(`late ${v}`), "late", ctx, v)];
  };
  on((_, { v }, ctx) => (/[lo]/.test(flagsOf(String(v))) ? late(String(v), ctx) : null), "item", "x", { name: "late" });
  const tried = new Set<string>();
  // Deaf to its signal.
  const stubborn = async (v: string, ctx: HookContext) => {
    const isFirst = !tried.has(ctx.key);
    tried.add(ctx.key);
    await new Promise<void>((resolve) => void clock.after(isFirst ? 200 + (textHash(v) % 300) : 5, resolve));
    return [derive("group", groupOf(`stubborn ${v}`), "stubborn", ctx, v)];
  };
  const stubbornOptions = { name: "stubborn", timeoutMs: 150, retries: 3 };
  on((_, { v }, ctx) => (isStubborn(String(v)) ? stubborn(String(v), ctx) : null), "item", "x", stubbornOptions);
  const later = async (v: string, ctx: HookContext) => {
    expectLife(v, ctx);
    await rest(300 + (textHash(v) % 700), ctx.signal);
    return [derive("group", groupOf(`later ${v}`), "later", ctx, v)];
  };
  on((_, { v }, ctx) => (flagsOf(String(v)).includes("o") ? later(String(v), ctx) : null), "item", "x", {
    name: "later",
  });
  const fragile = (v: string, ctx: HookContext) => {
    if (!flagsOf(v).includes("f")) return null;
    if (isBroken()) throw new Error("it is broken");
    return [derive("group", groupOf(`mended ${v}`), "mended", ctx, v)];
  };
  on((_, { v }, ctx) => fragile(String(v), ctx), "item", "x", { name: "fragile" });
  const fatal = (v: string) => (onFatal(v) ? new Promise<null>(() => {}) : null);
  on((_, { v }) => (flagsOf(String(v)) === "q" ? fatal(String(v)) : null), "item", "x", { name: "fatal" });
  const remove = (eid: string, flags: string) => {
    const found: { type: string; eid: string; delete: true }[] = [];
    if (flags.includes("d")) found.push({ type: "item", eid, delete: true });
    if (flags.includes("p")) found.push({ type: "item", eid: partnerOf(eid), delete: true });
    return found;
  };
  on((eid, { v }) => remove(String(eid), flagsOf(String(v))), "item", "x", { name: "remove" });
  module.registerOnNewAttrHook(
    (eid, { v }, ctx) => [derive("world", `w${textHash(String(eid)) % worlds}`, "sum", ctx, String(v))],
    "group",
    "member",
    { name: "sum" },
  );
  registerLinkHook(module);
  module.behaviour<Tally, TallyMessage>("tally", {
    initial: () => ({ seen: [] }),
    receive: async ({ seen }, message, ctx) => {
      const { n } = message;
      const name = nameOf(message);
      if (n % 2 === 0) await rest(textHash(name) % 60, ctx.signal);
      return {
        state: { seen: [...seen, name] },
        reply: `${name} at ${ctx.self}`,
        sends: forward(ctx.self, message).map(({ key, message: next }) => ({
          to: { behaviour: "tally", key },
          message: next,
        })),
      };
    },
  });
  const tick = ({ key, now, scheduled }: ScheduleRun) => [
    { type: "group", eid: "g0", datapoints: [{ attr: "tick", v: `${key}|${scheduled}`, t1: now }] },
  ];
  module.schedulerRegister(tick, "* * * * * *", { name: "second", where: "cluster", catchUp: "all" });
  return { hooks: registrar.hookTable(), scheduled: registrar.scheduled };
}

/** Whether its own entity is told of a value, by the hook `own`. */
export function isOrdered(value: string): boolean {
  return textHash(value) % 5 < 3;
}

/** Whether a value becomes a member of a group, by the hook `cross`. */
export function isMember(value: string): boolean {
  return textHash(value) % 7 < 3;
}

/** Whether the hook `stubborn` answers to a value, twice. */
export function isStubborn(value: string): boolean {
  return textHash(`stubborn ${value}`) % 40 === 0;
}

/** How a message is called in states and replies. */
export function nameOf({ sender, n }: TallyMessage): string {
  return `${sender}:${n}`;
}

/** What an actor sends on: every third message of the first hand, to the actor after it. */
export function forward(
  key: string,
  { sender, n }: TallyMessage,
): { readonly key: string; readonly message: TallyMessage }[] {
  if (n % 3 !== 0 || sender.includes(">")) return [];
  const next = actorKeys[(actorKeys.indexOf(key) + 1) % actorKeys.length] ?? "";
  return [{ key: next, message: { sender: `${sender}>${key}`, n } }];
}

/** The database takes no text that holds it. */
export const unstorable = "§";

export function flagsOf(value: string): string {
  return value.slice(value.lastIndexOf(":") + 1);
}

/** The session, batch number and index of a value that was sent. */
export function placeOf(value: string): { readonly session: string; readonly number: number; readonly index: number } {
  const [session = "", number = "0", index = "0"] = value.split(":");
  return { session, number: Number(number), index: Number(index) };
}

const startAt = 1_767_225_600_000;

/** The datapoints of one batch. Entities that begin with `own` have one sender; `all` have several. */
export function drawBatch(session: string, number: number, size: number, random: Random): ClientDatapoint[] {
  return Array.from({ length: size }, (_, index) => {
    const pick = random.next();
    const eid = drawEid(session, pick, random);
    const flags = drawFlags(eid, random);
    const v = `${session}:${number}:${index}:${flags}`;
    return { type: "item", eid, attr: flags === "b" ? "nope" : "x", v, t1: startAt + number * 100 + index };
  });
}

/** A datapoint that ends processes, of an entity of its own: what is given up has no order among what is not. */
export function fatalDatapoint(session: string, number: number, index: number): ClientDatapoint {
  const v = `${session}:${number}:${index}:q`;
  return { type: "item", eid: `fatal-${session}`, attr: "x", v, t1: startAt + number * 100 + index };
}

function drawEid(session: string, pick: number, random: Random): string {
  if (pick < 0.6) return `own-${session}-${random.between(1, 8)}`;
  if (pick < 0.8) return `all-${random.between(1, 5)}`;
  if (pick < 0.9) return `gone-${session}-${random.between(1, 3)}`;
  if (pick < 0.96) return partnerOf(`gone-${session}-${random.between(1, 3)}`);
  if (pick < 0.98) return `may-${random.between(1, 9)}`;
  return `no-${random.between(1, 3)}`;
}

function drawFlags(eid: string, random: Random): string {
  const draw = random.next();
  const removes = eid.startsWith("gone") ? (draw < 0.12 ? "d" : draw < 0.3 ? "p" : "") : "";
  // Slow hooks of what is deleted are open, or their answers on the way, when the deletion is due.
  const next = removes === "" ? random.next() : random.next() ** 3;
  const rest =
    next < 0.1 ? "l" : next < 0.109 ? "o" : next < 0.13 ? "f" : next < 0.15 ? "b" : next < 0.153 ? unstorable : "";
  return rest === "b" ? rest : removes + rest;
}
