import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create, toBinary } from "@bufbuild/protobuf";
import type { Offer } from "../../actors/lane/lane.ts";
import { bytesOfField, hashFields } from "../../actors/sessions/batch-hash.ts";
import { createStreamState, type StreamEffect, stepStream, type WireBatch } from "../../actors/sessions/stream.ts";
import { looseOf } from "../../actors/sessions/wire-datapoint.ts";
import { openPostgresStore } from "../../actors/store/postgres-store.ts";
import { checkDatapoint } from "../../modules/check-datapoint.ts";
import { type LoadedConfig, loadConfig } from "../../node/config/load-config.ts";
import { loadModules } from "../../node/module-loader.ts";
import { encodeBatches, encodeBatchMessage } from "../../proto/client-batch.ts";
import { systemClock } from "../../proto/clock.ts";
import { AckLevel, HelloSchema, NodeMessageSchema } from "../../proto/gen/starling_pb.ts";
import { toSessionId } from "../../proto/ids.ts";
import { createBatchReader } from "../../proto/read-batch.ts";
import { repository } from "../support/repository.ts";
import { ingestPlan } from "./ingest-run.ts";
import { createPlanOrder, passLength, type SendPlan } from "./plan.ts";
import { type AlonePlan, type AloneReport, preloadPlan, type Stage, stages } from "./stage.ts";
import { type StageLanes, startStageLanes } from "./stage-lanes.ts";
import { createStageMeter, type StageMeter } from "./stage-meter.ts";
import { type ThingDatapoint, thingDatapoint } from "./things.ts";

/**
 * The process of the alone view: takes batches of `ingest`'s datapoints through every stage, one after another, and
 * prints one line of JSON. Started as `node stages-alone.js PLAN`, the plan as JSON. Batches are encoded, and read
 * a second time for `validate`, outside of what is measured; `route` is a batch's whole way into the session, less
 * `validate`.
 */
async function main(plan: AlonePlan): Promise<AloneReport> {
  const config = await loadConfig(join(repository, "test/bench/config"), { env: {}, flags: {} });
  const { settings, model } = config;
  const shards = { entity: settings.entityShards, system: settings.systemShards };
  const store = await openPostgresStore({ url: plan.url, lanes: settings.lanes, shards });
  const cacheDir = await mkdtemp(join(tmpdir(), "starling-stages-"));
  try {
    const { hooks } = await loadReader(config, cacheDir);
    const meter = createStageMeter();
    const { postgresPid } = plan;
    const lanes = await startStageLanes({ model, hooks, settings, store, postgresPid, meter });
    const stream = openStream(config, meter);
    const sender = { stream, lanes, lastNumber: 0 };
    await pass(preloadPlan(plan.entities), plan, sender);
    meter.reset();
    lanes.reset();
    const measured = ingestPlan(plan.entities);
    const wire = await pass(measured, plan, sender);
    return reportOf({ meter, lanes, wire, count: passLength(measured) });
  } finally {
    await store.close();
    await rm(cacheDir, { recursive: true, force: true });
  }
}

function loadReader(config: LoadedConfig, cacheDir: string) {
  const { model, settings } = config;
  return loadModules({
    modulesDir: config.modulesDir ?? "",
    enabled: config.enabledModules,
    moduleConfigs: {},
    model,
    platformConfig: { nodeName: "bench", model, config: {} },
    hookDefaults: {
      concurrency: settings.hookConcurrency,
      timeoutMs: settings.hookTimeoutMs,
      retries: settings.hookRetries,
    },
    log: () => ({ debug: ignore, info: ignore, warn: ignore, error: ignore }),
    cacheDir,
    clock: systemClock,
  });
}

function ignore(): void {}

/** The node's side of one stream. */
interface StageStream {
  /** Takes messages, and says what is to be offered. */
  take(messages: readonly Uint8Array[]): Offer[];
  /** Acknowledges what can be. */
  turn(): void;
}

function openStream({ model, settings }: LoadedConfig, meter: StageMeter): StageStream {
  const state = createStreamState({
    model,
    entityShards: settings.entityShards,
    clusterId: "bench",
    node: "bench",
    addresses: () => [],
    creditBatches: settings.creditBatches,
    creditBytes: settings.creditBytes,
    unprocessedMax: 1e9,
  });
  const session = toSessionId("bench");
  const hello = create(HelloSchema, { versionMin: 1, versionMax: 1, level: AckLevel.PROCESSED });
  stepStream(state, { kind: "hello", hello });
  stepStream(state, { kind: "session", stored: { session, named: false, closed: false, opening: 1, number: 1 } });
  const reader = createBatchReader();
  const again = createBatchReader();
  const offers: Offer[] = [];
  const perform = (effects: readonly StreamEffect[]): void => {
    for (const effect of effects) {
      if (effect.kind === "offer") offers.push(offerOf(effect));
      if (effect.kind === "send") toBinary(NodeMessageSchema, create(NodeMessageSchema, effect.message));
      if (effect.kind === "end" || effect.kind === "rest") throw new Error(`the stream comes to ${effect.kind}`);
    }
  };
  const offerOf = ({ batch, parts, offer }: Extract<StreamEffect, { kind: "offer" }>): Offer => ({
    parts,
    listener: (news) => perform(stepStream(state, { kind: "tracks", message: { kind: "news", batch, offer, news } })),
  });
  return {
    take: (messages) => {
      for (const message of messages) {
        const { datapoints } = readBatch(again, message);
        const count = datapoints.length;
        meter.measure("validate", count, () => datapoints.map((one) => checkDatapoint(model, looseOf(one))));
        const batch = meter.measure("decode", count, () => readBatch(reader, message));
        meter.measure("route", count, () => perform(stepStream(state, { kind: "batch", batch })));
      }
      return offers.splice(0);
    },
    turn: () => meter.measure("acknowledge: messages", 1, () => perform(stepStream(state, { kind: "turn" }))),
  };
}

/** As `IngestSession` does it. */
function readBatch(reader: ReturnType<typeof createBatchReader>, bytes: Uint8Array): WireBatch {
  const { kind } = reader.read(bytes);
  if (kind.case !== "batch") throw new Error("a message that is no batch");
  const { atomic, datapoints } = kind.value;
  const body = bytesOfField(bytes, 2) ?? new Uint8Array(0);
  const predecessor = kind.value.predecessor === undefined ? null : Number(kind.value.predecessor);
  const content = { atomic, datapoints, bytes: body.length, hash: hashFields(body, 3, 4) };
  return { number: Number(kind.value.number), predecessor, ...content };
}

interface Sender {
  readonly stream: StageStream;
  readonly lanes: StageLanes;
  lastNumber: number;
}

/** Sends a plan's datapoints through, until all are flushed; returns the bytes of the messages. */
async function pass(plan: SendPlan, { batches, dirtyMin }: AlonePlan, sender: Sender): Promise<number> {
  const { stream, lanes } = sender;
  const order = createPlanOrder(plan);
  const count = passLength(plan);
  let bytes = 0;
  for (let sent = 0; sent < count; ) {
    const messages: Uint8Array[] = [];
    for (let i = 0; i < batches && sent < count; i++) {
      const datapoints: ThingDatapoint[] = [];
      for (const end = Math.min(count, sent + plan.batch); sent < end; sent++) {
        const { entity, attribute, generation } = order.at(sent);
        datapoints.push(thingDatapoint(entity, attribute, generation, plan.population));
      }
      messages.push(encodeMessage(datapoints, sender));
    }
    bytes += messages.reduce((sum, { length }) => sum + length, 0);
    await lanes.offer(stream.take(messages));
    stream.turn();
    await lanes.flushDownTo(dirtyMin);
    stream.turn();
  }
  await lanes.flushDownTo(0);
  stream.turn();
  return bytes;
}

function encodeMessage(datapoints: readonly ThingDatapoint[], sender: Sender): Uint8Array {
  const [batch] = encodeBatches(datapoints, false);
  if (batch === undefined) throw new Error("an empty batch");
  const predecessor = sender.lastNumber === 0 ? null : sender.lastNumber;
  sender.lastNumber += 1;
  return encodeBatchMessage(batch, sender.lastNumber, predecessor);
}

interface Measured {
  readonly meter: StageMeter;
  readonly lanes: StageLanes;
  readonly wire: number;
  readonly count: number;
}

function reportOf({ meter, lanes, wire, count }: Measured): AloneReport {
  const all = meter.parts();
  const of = (part: string) => all.get(part) ?? { us: 0, heap: 0 };
  const stageOf = (part: string): string => part.replace(/:.*/, "");
  const sum = (name: string, unit: "us" | "heap"): number => {
    const own = [...all].filter(([part]) => stageOf(part) === name).reduce((total, [, one]) => total + one[unit], 0);
    const less = { route: of("validate")[unit], client: of("append: pack")[unit] + of("flush: pack")[unit] };
    return (own - (less[name as keyof typeof less] ?? 0)) / count;
  };
  const byStage = (unit: "us" | "heap") =>
    Object.fromEntries(stages.map((stage) => [stage, sum(stage, unit)])) as Record<Stage, number>;
  const { written } = lanes;
  return {
    us: { ...byStage("us"), client: sum("client", "us"), gc: meter.gcUs() / count },
    parts: Object.fromEntries([...all].map(([part, { us }]) => [part, us / count])),
    heap: byStage("heap"),
    postgresUs: perDatapoint(written.postgresUs, count),
    bytes: perDatapoint({ wire, ...written.bytes }, count),
    rows: perDatapoint(written.rows, count),
  };
}

function perDatapoint<Key extends string>(sums: Readonly<Record<Key, number>>, count: number): Record<Key, number> {
  const entries = Object.entries<number>(sums).map(([key, sum]) => [key, sum / count]);
  return Object.fromEntries(entries) as Record<Key, number>;
}

const [plan = "{}"] = process.argv.slice(2);
process.stdout.write(`${JSON.stringify(await main(JSON.parse(plan) as AlonePlan))}\n`);
