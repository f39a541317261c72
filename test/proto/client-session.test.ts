import { create, fromBinary } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { encodeBatches } from "../../proto/client-batch.ts";
import { ClientSession } from "../../proto/client-session.ts";
import { AckLevel, AckSchema, ClientMessageSchema } from "../../proto/gen/starling_pb.ts";
import { defaultWindow } from "../../proto/send-window.ts";

/** A session of the level processed, and what leaves it. */
function start() {
  const session = new ClientSession({ startNumber: 1, level: AckLevel.PROCESSED, window: defaultWindow });
  const sent: string[] = [];
  const connect = (settles: boolean): void => {
    sent.length = 0;
    const write = (message: Buffer): boolean => {
      const { kind } = fromBinary(ClientMessageSchema, message);
      if (kind.case === "batch") sent.push(`${kind.value.number} after ${kind.value.predecessor}`);
      else if (kind.case === "settle") sent.push(`settle ${kind.value.through}`);
      return true;
    };
    session.onConnected({ creditBatches: 8, creditBytes: 1_000_000, settles, write });
  };
  const settled: string[] = [];
  const send = async (count: number): Promise<void> => {
    const datapoints = Array.from({ length: count }, (_, at) => ({ type: "thing", eid: `e${at}`, attr: "x", v: 1 }));
    const [batch] = encodeBatches(datapoints, false);
    if (batch === undefined) throw new Error("no batch");
    const { number, outcome } = await session.add(batch);
    void outcome.then(({ accepted, obligations }) => settled.push(`${number}: ${accepted}, ${obligations}`));
  };
  const ack = (level: AckLevel, first: number, last: number, rest: object = {}) =>
    session.onAck(create(AckSchema, { level, first: BigInt(first), last: BigInt(last), ...rest }));
  return { session, sent, settled, connect, send, ack };
}

test("after a break what is durable is asked for by its number, the rest goes again before anything new", async () => {
  const { session, sent, settled, connect, send, ack } = start();
  connect(true);
  for (const count of [1, 2, 3, 4]) await send(count);
  expect(sent).toEqual(["1 after undefined", "2 after 1", "3 after 2", "4 after 3"]);
  ack(AckLevel.DURABLE, 1, 2, { rejections: [{ number: 2n, rejections: [{ index: 0, code: "INVALID_VALUE" }] }] });
  session.onDisconnected();
  await send(5);
  connect(true);
  expect(sent).toEqual(["settle 2", "3 after undefined", "4 after 3", "5 after 4"]);
  expect(session.inFlight).toBe(3);
  ack(AckLevel.DURABLE, 3, 5);
  const told = ack(AckLevel.PROCESSED, 0, 2, { obligations: 1 });
  expect(told).toMatchObject({ first: 1n, last: 2n, accepted: 2n });
  await Promise.resolve();
  expect(settled).toEqual(["1: 1, 1", "2: 1, 1"]);
  expect(session.unacknowledged).toBe(3);
  ack(AckLevel.PROCESSED, 3, 5);
  expect(session.unacknowledged).toBe(0);
});

test("with nothing durable nothing is asked for, and with nothing else nothing is sent", async () => {
  const { session, sent, connect, send, ack } = start();
  connect(true);
  await send(1);
  session.onDisconnected();
  connect(true);
  expect(sent).toEqual(["1 after undefined"]);
  ack(AckLevel.DURABLE, 1, 1);
  session.onDisconnected();
  connect(true);
  expect(sent).toEqual(["settle 1"]);
  // One more break, before the answer.
  session.onDisconnected();
  connect(true);
  expect(sent).toEqual(["settle 1"]);
  await send(1);
  expect(sent).toEqual(["settle 1", "2 after undefined"]);
});

test("a node that does not settle is sent everything that is unacknowledged", async () => {
  const { session, sent, connect, send, ack } = start();
  connect(true);
  await send(1);
  await send(1);
  ack(AckLevel.DURABLE, 1, 1);
  session.onDisconnected();
  connect(false);
  expect(sent).toEqual(["1 after undefined", "2 after 1"]);
});
