import { create, toBinary } from "@bufbuild/protobuf";
import { status } from "@grpc/grpc-js";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import type { Connection } from "../../actors/store/connection.ts";
import type { Client } from "../../proto/client.ts";
import { type ClientDatapoint, encodeBatches, encodeBatchMessage, toWireValue } from "../../proto/client-batch.ts";
import { callUnary, type Dialled, dial } from "../../proto/client-call.ts";
import { AckLevel, Ingest, SendRequestSchema } from "../../proto/gen/starling_pb.ts";
import { dumpDatabase } from "../support/database-dump.ts";
import { helloMessage, openHttp2Stream } from "../support/http2-stream.ts";
import { openRawStream } from "../support/raw-stream.ts";
import { startTypesNode, type TypesNode } from "../support/types-node.ts";

/** Clients that do not behave, against a real node with PostgreSQL: it bounds them, and goes on for the others. */
const opened: (() => unknown)[] = [];
let node: TypesNode;
let client: Client;
let dialled: Dialled;
let connection: Connection;

beforeAll(async () => {
  node = await startTypesNode();
  ({ client, connection } = node);
  dialled = dial(node.address);
});

afterEach(async () => {
  for (const close of opened.splice(0).reverse()) await close();
});

afterAll(async () => {
  dialled.grpc.close();
  await node.close();
});

const point = (eid: string, v: unknown = 1, attr = "int"): ClientDatapoint => ({ type: "probe", eid, attr, v });
const points = (count: number, eid: string, v?: unknown, attr?: string): ClientDatapoint[] =>
  Array.from({ length: count }, () => point(eid, v, attr));

/** One batch of all of them, however many and large: the limits are for the node to tell. */
function contentOf(datapoints: readonly ClientDatapoint[]): Uint8Array {
  return Buffer.concat(encodeBatches(datapoints, false).map(({ content }) => content));
}

function messageOf(datapoints: readonly ClientDatapoint[], number: number): Buffer {
  const batch = { content: contentOf(datapoints), count: datapoints.length };
  return encodeBatchMessage(batch, number, number === 1 ? null : number - 1);
}

/** The eids of an entity's raw datapoints that begin so, in order. */
async function storedOf(prefix: string): Promise<string[]> {
  const text = "select eid from starling.raw where starts_with(eid, $1)";
  return (await connection.query<{ eid: string }>(text, [prefix])).map(({ eid }) => eid).sort();
}

const large = points(5, "large", "x".repeat(1_000_000), "string");
const batchCases: readonly (readonly [what: string, ClientDatapoint[], code: string, message: RegExp])[] = [
  ["10,001 items", points(10_001, "many"), "TOO_LARGE", /^a batch of 10001 datapoints: the limit is 10000$/],
  ["more than 4 MiB", large, "TOO_LARGE", /^a batch of 50001\d\d bytes: the limit is 4194304$/],
  ["nothing in it", [], "INVALID_ARGUMENT", /^an empty batch: a batch has at least one datapoint$/],
];

describe("a batch beyond the limits is refused by code and rule, and changes nothing (R4)", () => {
  test("in a stream, which goes on", async () => {
    const raw = openRawStream(node.address, "", false, AckLevel.PROCESSED);
    opened.push(() => raw.close());
    await raw.welcomed;
    const processed = (number: number) =>
      expect
        .poll(() => raw.acks.filter(({ level }) => level === AckLevel.PROCESSED).at(-1)?.last, { timeout: 10_000 })
        .toBe(BigInt(number));
    raw.stream.write(messageOf([point("before")], 1));
    await processed(1);
    const before = await dumpDatabase(connection);
    expect(before).toContain("probe,before,int");
    for (const [index, [, datapoints]] of batchCases.entries()) raw.stream.write(messageOf(datapoints, index + 2));
    await processed(batchCases.length + 1);
    const told = raw.acks.flatMap(({ level, rejections }) => (level === AckLevel.DURABLE ? rejections : []));
    expect(told.map(({ number, rejections }) => [Number(number), ...rejections])).toMatchObject(
      batchCases.map(([, , code, message], index) => [
        index + 2,
        { index: 0, code, message: expect.stringMatching(message) },
      ]),
    );
    expect(raw.acks.reduce((sum, { accepted }) => sum + Number(accepted), 0)).toBe(2); // the first, once per level
    expect(await dumpDatabase(connection)).toBe(before);
    raw.stream.write(messageOf([point("after")], batchCases.length + 2));
    await processed(batchCases.length + 2);
    expect(await storedOf("after")).toEqual(["after"]);
    expect(raw.problems).toEqual([]);
  });

  test("in a call, and the next one is taken", async () => {
    const send = (datapoints: readonly ClientDatapoint[]) => {
      const wire = datapoints.map(({ type, eid, attr, v }) => ({ type, eid: String(eid), attr, v: toWireValue(v) }));
      return callUnary(dialled, Ingest.method.send, { datapoints: wire, level: AckLevel.PROCESSED }, 10_000);
    };
    await send([point("call-1")]);
    const before = await dumpDatabase(connection);
    for (const [what, datapoints, code, message] of batchCases) {
      const { accepted, rejections } = await send(datapoints);
      expect({ accepted: Number(accepted), rejections }, what).toMatchObject({
        accepted: 0,
        rejections: [{ index: 0, code, message: expect.stringMatching(message) }],
      });
    }
    expect(await dumpDatabase(connection)).toBe(before);
    expect(Number((await send([point("call-2")])).accepted)).toBe(1);
    expect(await storedOf("call-")).toEqual(["call-1", "call-2"]);
  });

  test("in a call with the key of another one, wherever it would go", async () => {
    const send = (eid: string, idempotencyKey: string) => {
      const datapoints = [{ type: "probe", eid, attr: "int", v: toWireValue(1) }];
      return callUnary(dialled, Ingest.method.send, { datapoints, idempotencyKey, level: AckLevel.PROCESSED }, 10_000);
    };
    const first = await send("key-0", "mine");
    const before = await dumpDatabase(connection);
    const refusal = { code: "BATCH_CHANGED", message: "the idempotency key mine came back with other content" };
    for (let i = 1; i <= 20; i++) await expect(send(`key-${i}`, "mine")).rejects.toMatchObject(refusal);
    expect(await dumpDatabase(connection)).toBe(before);
    expect((await send("key-0", "mine")).tokens).toEqual(first.tokens);
    await send("key-1", "yours");
    expect(await storedOf("key-")).toEqual(["key-0", "key-1"]);
  });

  test("a message above what gRPC takes is told as such, and the client's next stream is served", async () => {
    const raw = openRawStream(node.address, "oversized", true);
    opened.push(() => raw.close());
    await raw.welcomed;
    const before = await dumpDatabase(connection);
    raw.stream.write(messageOf([...large, ...large], 1));
    await expect.poll(() => raw.problems, { timeout: 10_000 }).toHaveLength(1);
    const tooLarge = { code: "TOO_LARGE", message: expect.stringMatching(/larger than max \(1\d{7} vs\.? 8388608\)$/) };
    expect(raw.problems[0]).toMatchObject(tooLarge);
    const setting = client.entities.set({ type: "probe", eid: "large", attr: "string", v: "x".repeat(10_000_000) });
    await expect(setting).rejects.toMatchObject(tooLarge);
    expect(await dumpDatabase(connection)).toBe(before);
    const next = openRawStream(node.address, "oversized", true);
    opened.push(() => next.close());
    await next.welcomed;
    next.stream.write(messageOf([point("oversized")], 1));
    await expect.poll(() => next.acks.at(-1)?.last, { timeout: 10_000 }).toBe(1n);
  });
});

/** The message with an `~` of its text as half of a surrogate pair, which is no UTF-8. */
function illFormed(datapoints: readonly ClientDatapoint[], number: number): Buffer {
  const message = messageOf(datapoints, number);
  const at = message.indexOf("~~~");
  if (at < 0) throw new Error("there is no place for it");
  Buffer.from([0xed, 0xa0, 0x80]).copy(message, at);
  return message;
}

test.each([
  ["id", point("ill-~~~")],
  ["value", point("ill-1", "~~~", "string")],
  ["attribute", point("ill-2", 1, "~~~")],
])("a stream whose %s is not UTF-8 ends with what is wrong, and nothing changes", async (_, datapoint) => {
  const raw = openRawStream(node.address);
  opened.push(() => raw.close());
  await raw.welcomed;
  raw.stream.write(messageOf([point("well")], 1));
  await expect.poll(() => raw.acks.at(-1)?.last, { timeout: 10_000 }).toBe(1n);
  await client.send([point("well")]); // what came before is written
  const before = await dumpDatabase(connection);
  raw.stream.write(illFormed([point("well"), datapoint], 2));
  await expect.poll(() => raw.problems, { timeout: 10_000 }).toHaveLength(1);
  expect(raw.problems[0]).toMatchObject({
    code: "INVALID_ARGUMENT",
    message: expect.stringMatching(/the message is no ClientMessage: .*utf-?8/i),
  });
  expect(await dumpDatabase(connection)).toBe(before);
});

test("a call whose id is not UTF-8 is refused by code, and nothing changes", async () => {
  const datapoints = [point("well"), point("ill-~~~")].map(({ type, eid, attr, v }) => {
    return { type, eid: String(eid), attr, v: toWireValue(v) };
  });
  const message = Buffer.from(toBinary(SendRequestSchema, create(SendRequestSchema, { datapoints })));
  Buffer.from([0xed, 0xa0, 0x80]).copy(message, message.indexOf("~~~"));
  const before = await dumpDatabase(connection);
  const asItIs = (bytes: Buffer): Buffer => bytes;
  const refusal = await new Promise<unknown>((resolve) => {
    dialled.grpc.makeUnaryRequest("/starling.v1.Ingest/Send", asItIs, asItIs, message, resolve);
  });
  const details = expect.stringMatching(/the message is no SendRequest: .*utf-?8/i);
  expect(refusal).toMatchObject({ code: status.INVALID_ARGUMENT, details });
  expect(await dumpDatabase(connection)).toBe(before);
});

describe("others go on, and what was acknowledged is there, beside", () => {
  /** The acknowledgement of one is larger than what a connection holds unread. */
  const mostlyBad = (eid: string) => [point(eid), ...points(1_000, eid, "x")];

  test("a client that never reads its acknowledgements", async () => {
    const silent = openHttp2Stream(node.address);
    const greedy = openHttp2Stream(node.address);
    opened.push(silent.destroy, greedy.destroy);
    silent.write(helloMessage);
    greedy.write(helloMessage);
    // One keeps to its credits, the other sends on, one batch for each of somebody else's.
    for (let number = 1; number <= 8; number++) silent.write(messageOf(mostlyBad(`silent-${number}`), number));
    for (let number = 1; number <= 24; number++) {
      greedy.write(messageOf(mostlyBad(`greedy-${number}`), number));
      expect((await client.send(points(20, "beside"))).accepted).toBe(20);
    }
    await expect.poll(() => storedOf("silent-"), { timeout: 10_000 }).toHaveLength(8);
    await expect.poll(async () => (await storedOf("greedy-")).length, { timeout: 10_000 }).toBeGreaterThanOrEqual(8);
    silent.read();
    greedy.read();
    const ackedBy = (stream: typeof silent) => stream.acks().reduce((sum, { accepted }) => sum + Number(accepted), 0);
    await expect.poll(() => ackedBy(silent), { timeout: 10_000 }).toBe(8);
    const refused = silent.acks().flatMap(({ rejections }) => rejections.flatMap((batch) => batch.rejections));
    expect(refused.length).toBe(8 * 1_000);
    await expect.poll(() => greedy.answers.at(-1)?.case, { timeout: 10_000 }).toBe("problem");
    expect(greedy.answers.at(-1)?.value).toMatchObject({
      code: "BUSY",
      message: "the client sent more than its credits: 8 batches, 16777216 bytes",
    });
    // No credit came back but for what one acknowledgement told.
    const stored = (await storedOf("greedy-")).length;
    expect(stored).toBeLessThanOrEqual(17);
    expect(stored).toBeGreaterThanOrEqual(ackedBy(greedy));
  });

  test("a client that vanishes for good in the middle of a batch", async () => {
    const gone = openHttp2Stream(node.address);
    opened.push(gone.destroy);
    gone.read();
    gone.write(helloMessage);
    gone.write(messageOf([point("gone-1")], 1));
    await expect.poll(() => gone.acks().at(-1)?.last, { timeout: 10_000 }).toBe(1n);
    const half = messageOf(
      Array.from({ length: 5_000 }, (_, i) => point(`gone-2-${i}`)),
      2,
    );
    gone.write(half, half.length - 1);
    expect((await client.send(points(20, "beside"))).accepted).toBe(20);
    gone.destroy();
    expect((await client.send(points(20, "beside"))).accepted).toBe(20);
    expect(await storedOf("gone-")).toEqual(["gone-1"]);
  });
});
