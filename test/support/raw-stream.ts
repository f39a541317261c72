import { encodeBatches, encodeBatchMessage } from "../../proto/client-batch.ts";
import { dial } from "../../proto/client-call.ts";
import { type ClientStream, openClientStream } from "../../proto/client-stream.ts";
import { type Ack, AckLevel, type Welcome } from "../../proto/gen/starling_pb.ts";
import type { StarlingError } from "../../proto/starling-error.ts";

export interface RawStream {
  readonly stream: ClientStream;
  readonly acks: Ack[];
  readonly problems: StarlingError[];
  /** Null: without a problem. */
  readonly ends: (StarlingError | null)[];
  send(number: number, predecessor: number | null, eid: string): void;
  readonly welcomed: Promise<Welcome>;
  close(): void;
}

/** A stream without the client's care: it sends what the test says. */
export function openRawStream(
  address: string,
  session = "",
  named = false,
  level: AckLevel = AckLevel.DURABLE,
): RawStream {
  const dialled = dial(address);
  const acks: Ack[] = [];
  const problems: StarlingError[] = [];
  const ends: (StarlingError | null)[] = [];
  let welcome: (one: Welcome) => void = () => {};
  const welcomed = new Promise<Welcome>((resolve) => {
    welcome = resolve;
  });
  const hello = { versionMin: 1, versionMax: 1, session, named, level };
  const stream = openClientStream(dialled, hello, {
    onWelcome: (one) => welcome(one),
    onAck: (ack) => acks.push(ack),
    onLeaving: () => {},
    onDrain: () => {},
    onEnd: (error) => {
      ends.push(error);
      if (error !== null) problems.push(error);
    },
  });
  const send = (number: number, predecessor: number | null, eid: string) => {
    for (const batch of encodeBatches([{ type: "thing", eid, attr: "name", v: "x" }], false))
      stream.write(encodeBatchMessage(batch, number, predecessor));
  };
  return { stream, acks, problems, ends, send, welcomed, close: () => dialled.grpc.close() };
}
