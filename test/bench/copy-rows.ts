import { shardOf } from "../../proto/shard-of.ts";
import { createPlanOrder, passLength, type SendPlan } from "./plan.ts";
import { thingDatapoint } from "./things.ts";

/** A datapoint as a row of the baseline's table. */
interface Row {
  readonly shard: number;
  readonly seq: number;
  readonly eid: string;
  readonly attr: string;
  readonly t1: number | null;
  readonly t2: number | null;
  readonly json: string;
}

/** The rows of a plan's first pass, cut into commits, as COPY takes them in text and in binary. */
export interface CopyRows {
  readonly count: number;
  readonly text: readonly Buffer[];
  readonly binary: readonly Buffer[];
}

const shards = 256;
/** PostgreSQL counts from 2000-01-01. */
const postgresEpochMs = 946_684_800_000;

/** Encodes the datapoints of a plan in the order of sending, `rowsPerCommit` together. */
export function encodeCopyRows(plan: SendPlan, rowsPerCommit: number): CopyRows {
  const order = createPlanOrder(plan);
  const count = passLength(plan);
  const lastSeqs = new Uint32Array(shards);
  const text: Buffer[] = [];
  const binary: Buffer[] = [];
  for (let start = 0; start < count; start += rowsPerCommit) {
    const rows: Row[] = [];
    for (let position = start; position < Math.min(count, start + rowsPerCommit); position++) {
      const { entity, attribute, generation } = order.at(position);
      const { eid, attr, v, t1, t2 } = thingDatapoint(entity, attribute, generation, plan.population);
      const shard = shardOf("entity", "thing", eid, shards);
      const seq = (lastSeqs[shard] ?? 0) + 1;
      lastSeqs[shard] = seq;
      rows.push({ shard, seq, eid, attr, t1: t1 ?? null, t2: t2 ?? null, json: JSON.stringify(v) });
    }
    text.push(Buffer.from(rows.map(textRow).join("")));
    binary.push(Buffer.concat([binaryHead, ...rows.map(binaryRow), binaryEnd]));
  }
  return { count, text, binary };
}

/** No value of the benchmarks holds what COPY's text format escapes. */
function textRow({ shard, seq, eid, attr, t1, t2, json }: Row): string {
  return `${shard}\t${seq}\tthing\t${eid}\t${attr}\tbench\t${textTime(t1)}\t${textTime(t2)}\t1\t${json}\n`;
}

function textTime(at: number | null): string {
  return at === null ? "\\N" : new Date(at).toISOString();
}

const binaryHead = Buffer.concat([Buffer.from("PGCOPY\n\xff\r\n\0", "latin1"), Buffer.alloc(8)]);
const binaryEnd = Buffer.from([0xff, 0xff]);
const jsonbVersion = "\x01";
const fixedBytes = 512;

function binaryRow({ shard, seq, eid, attr, t1, t2, json }: Row): Buffer {
  const row = Buffer.alloc(fixedBytes + json.length);
  let at = row.writeInt16BE(10, 0);
  const text = (value: string): void => {
    const length = row.write(value, at + 4);
    row.writeInt32BE(length, at);
    at += 4 + length;
  };
  const time = (value: number | null): void => {
    at = row.writeInt32BE(value === null ? -1 : 8, at);
    if (value !== null) at = row.writeBigInt64BE(BigInt(value - postgresEpochMs) * 1000n, at);
  };
  at = row.writeInt16BE(shard, row.writeInt32BE(2, at));
  at = row.writeBigInt64BE(BigInt(seq), row.writeInt32BE(8, at));
  text("thing");
  text(eid);
  text(attr);
  text("bench");
  time(t1);
  time(t2);
  at = row.writeFloatBE(1, row.writeInt32BE(4, at));
  text(jsonbVersion + json);
  return row.subarray(0, at);
}
