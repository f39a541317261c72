import { setImmediate } from "node:timers/promises";
import { expect } from "vitest";
import { createCounters } from "../../../actors/counters.ts";
import type { HookCall } from "../../../actors/hooks/hook-call.ts";
import type { HookOutcome } from "../../../actors/hooks/hook-outcome.ts";
import { createHookRunner, hookRunnerLimits } from "../../../actors/hooks/hook-runner.ts";
import { readSegment } from "../../../actors/log/segment.ts";
import { checkSend, modelWithBehaviours } from "../../../modules/behaviour-model.ts";
import type { CheckedTask } from "../../../modules/datapoint.ts";
import type { Hook } from "../../../modules/hook.ts";
import { createRegistrar } from "../../../modules/registrar.ts";
import { shardId, toSeq } from "../../../proto/ids.ts";
import { shardOf } from "../../../proto/shard-of.ts";
import { createManualClock } from "../../support/manual-clock.ts";
import type { MemoryStore } from "../../support/memory-store.ts";
import { fieldsOf } from "../../support/state-fields.ts";
import { testModel } from "../../support/test-model.ts";

/**
 * A behaviour that keeps the numbers it was sent, and sends on: every number below 1,000 gives two more, to two other keys,
 * and a datapoint for an entity. Some numbers fail for good, some take a turn of the event loop.
 */
interface Tally {
  readonly seen: readonly number[];
}

interface Counted {
  readonly n: number;
  readonly to?: readonly string[];
}

export const shards = 4;
export const keys = ["a", "b", "c", "d", "e"];
const log = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };
const plain = testModel({ dst: { seen: { kind: "observations", type: "int" } } });

export const fails = (n: number): boolean => n % 7 === 3;
const isSlow = (n: number): boolean => n % 3 === 0;
/** What a number gives. */
const gives = (n: number): readonly number[] => (n < 1000 && !fails(n) ? [1000 + 10 * n, 1001 + 10 * n] : []);

/** The behaviour, registered as a module does. */
export function createScript(mended = false) {
  const registrar = createRegistrar(plain, { concurrency: 4, timeoutMs: 1000, retries: 0 });
  registrar
    .forModule("test", log, () => ({}))
    .behaviour<Tally, Counted>("tally", {
      initial: () => ({ seen: [] }),
      receive: ({ seen }, { n, to = [] }, ctx) => {
        if (fails(n) && !mended) throw new Error(`no ${n}`);
        const sends = gives(n).map((message, i) => ({
          to: { behaviour: "tally", key: to[i] ?? "" },
          message: { n: message },
        }));
        const task = { type: "dst", eid: `d${n % 3}`, datapoints: [{ attr: "seen", v: n, t1: 1_000_000 + n }] };
        const state = { seen: [...seen, n] };
        const answer = { state, reply: { key: ctx.self, count: state.seen.length }, tasks: [task], sends };
        return isSlow(n) ? setImmediate().then(() => answer) : answer;
      },
    });
  const hooks = registrar.hookTable();
  const model = modelWithBehaviours(plain, registrar.behaviours);
  const runner = createHookRunner({
    ...{ hooks, model, limits: hookRunnerLimits, clock: createManualClock(), random: () => 0 },
    ...{ counters: createCounters(), log: () => log, getRecord: async () => null },
  });
  const runHook = (hook: Hook, call: HookCall): HookOutcome | Promise<HookOutcome> => runner.run(hook, call);
  return { hooks, model, runHook };
}

export const script = createScript();

/** The message of a number for a key. */
export function message(key: string, n: number): CheckedTask {
  const to = [keys[(n + 1) % keys.length], keys[(n + 3) % keys.length]];
  return checkSend(script.model, { behaviour: "tally", key }, { n, to });
}

/** Twenty batches of two messages each, many of which share an actor. */
export const batches: readonly (readonly CheckedTask[])[] = Array.from({ length: 20 }, (_, i) => [
  message(keys[i % keys.length] ?? "", 2 * i),
  message(keys[(i * 3) % 2] ?? "", 2 * i + 1),
]);

interface Logged {
  readonly place: string;
  readonly key: string;
  readonly n: number;
}

function numberOf({ datapoints: [one] }: CheckedTask): number {
  return (JSON.parse(one?.json ?? "") as Counted).n;
}

/** What must be true whatever died on the way */
export async function checkStore(store: MemoryStore): Promise<{ readonly messages: number; readonly letters: number }> {
  const messages: Logged[] = [];
  const results = new Map<string, number>();
  for (let i = 0; i < shards; i++) {
    const id = shardId("entity", i);
    for (const segment of await store.readLog(id, toSeq(0), 100_000)) {
      const read = readSegment(segment, script.model);
      for (const { seq, logged } of read.tasks) {
        if (logged.type !== "@tally" || logged.task instanceof Error) continue;
        const { n } = JSON.parse(logged.task.datapoints[0]?.json ?? "") as Counted;
        messages.push({ place: `${id}-${seq}`, key: logged.eid, n });
      }
      for (const { cause } of read.results) {
        results.set(`${id}-${cause}`, (results.get(`${id}-${cause}`) ?? 0) + 1);
      }
    }
  }
  const sent = batches.flat().map((one) => numberOf(one));
  const wanted = [...sent, ...sent.flatMap(gives)].sort((x, y) => x - y);
  expect(messages.map(({ n }) => n).sort((x, y) => x - y)).toEqual(wanted);
  expect(Object.fromEntries(results)).toEqual(Object.fromEntries(messages.map(({ place }) => [place, 1])));
  for (const key of keys) await checkActor(store, key, messages);
  const letters = [...store.shards].flatMap(([id, { letters: all }]) =>
    [...all.values()].map(({ seq }) => `${id}-${seq}`),
  );
  const failed = messages.filter(({ n }) => fails(n)).map(({ place }) => place);
  expect(letters.sort()).toEqual(failed.sort());
  await checkEntities(store, messages);
  return { messages: messages.length, letters: letters.length };
}

async function checkActor(store: MemoryStore, key: string, messages: readonly Logged[]): Promise<void> {
  const own = messages.filter((one) => one.key === key).map(({ n }) => n);
  const state = await stateOf(store, "@tally", key);
  expect(state.state?.v, `state of ${key}`).toEqual({ seen: own.filter((n) => !fails(n)) });
  // In the order in which they were sent, by the client and by each other actor.
  const ofClient = batches.flat().flatMap((one) => (one.eid === key ? [numberOf(one)] : []));
  expect(own.filter((n) => n < 1000)).toEqual(ofClient);
  for (const source of keys) {
    const causes = messages.filter((one) => one.key === source && one.n < 1000).map(({ n }) => n);
    const given = causes.flatMap((n) => gives(n).filter((m) => own.includes(m)));
    expect(
      own.filter((n) => given.includes(n)),
      `from ${source} to ${key}`,
    ).toEqual(given);
  }
}

async function checkEntities(store: MemoryStore, messages: readonly Logged[]): Promise<void> {
  for (const rest of [0, 1, 2]) {
    const { seen } = await stateOf(store, "dst", `d${rest}`);
    expect(seen?.n).toBe(messages.filter(({ n }) => n % 3 === rest && !fails(n)).length);
  }
}

type Fields = Readonly<Record<string, { readonly v: unknown; readonly n: number }>>;

async function stateOf(store: MemoryStore, type: string, eid: string): Promise<Fields> {
  const [stored] = await store.load([{ shard: shardOf("entity", type, eid, shards), type, eid }]);
  return fieldsOf(stored?.state ?? "{}") as unknown as Fields;
}
