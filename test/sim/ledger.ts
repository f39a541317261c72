import { type LinkChange, readLinkChange } from "../../actors/links/link-change.ts";
import { outboxJoint, unescapeText } from "../../actors/log/line.ts";
import type { Segment } from "../../actors/store/store.ts";
import { messageAttr } from "../../modules/behaviour.ts";
import type { ShardId } from "../../proto/ids.ts";
import { nameOf, type TallyMessage, tallyType } from "./load.ts";

/** One line of the log. */
export interface Line {
  readonly shard: ShardId;
  readonly seq: number;
  /** Seq of its task's first line. */
  readonly task: number;
  readonly kind: "datapoint" | "delete" | "tokens" | "link" | "other";
  readonly at: number;
  readonly type: string;
  readonly eid: string;
  readonly attr: string;
  /** A text, as all values of the simulation; of a link the text that it carries. */
  readonly v: string;
  readonly t1: number | null;
  /** Whom a link names. */
  readonly target: string | null;
  /** Of `tokens`: until when the newest of them lasts, Unix ms. */
  readonly untilMs: number;
  /** Of `link`. */
  readonly change: LinkChange | null;
}

/** Everything that was ever committed to the logs, also what retention has dropped since. */
export class Ledger {
  readonly #rows = new Set<string>();
  /** By shard, in the order of the commits. */
  readonly lines = new Map<ShardId, Line[]>();
  /** Of values that were sent. */
  readonly sent = new Map<string, Line[]>();
  /** Of derived values, by the key that they begin with. */
  readonly derived = new Map<string, Line[]>();
  /** Keys that stand in an outbox line. */
  readonly outbox = new Set<string>();
  /** Values that were sent, by the segment that holds them: shard and seq. */
  readonly sentIn = new Map<string, string[]>();
  /** Messages for actors. */
  readonly messages: { readonly shard: ShardId; readonly seq: number; key: string; message: TallyMessage }[] = [];
  /** Rows that came twice. */
  repeats = 0;

  add(segment: Segment): void {
    const { shard, seq, at, body } = segment;
    const row = `${shard} ${seq} ${at}`;
    if (this.#rows.has(row)) {
      this.repeats++;
      return;
    }
    this.#rows.add(row);
    let task = 0;
    for (const [index, text] of body.split("\n").entries()) {
      if (text === "") continue;
      if (!text.startsWith("+")) task = seq + index;
      const line = this.#addLine(segment, seq + index, task, text);
      if (line.attr === "x") push(this.sentIn, `${shard} ${seq}`, line.v);
    }
  }

  /** Made of all fields by name, hundreds of times as often as anything else here: from others spread it would take the longest. */
  #addLine({ shard, at, seq: first }: Segment, seq: number, task: number, text: string): Line {
    const fields = text.split("\t");
    const field = (index: number): string => fields[index] ?? "";
    const [kind, type, eid, attr, t1, json] = [
      field(0),
      field(1),
      unescapeText(field(2)),
      field(3),
      field(5),
      field(8),
    ];
    if (kind === "o") this.#addOutbox(fields);
    const isTask = kind === "d" || kind === "+";
    // Types of actors begin so.
    const isMessage = isTask && type.startsWith("@");
    if (isMessage && type === tallyType && attr === messageAttr) {
      const message = JSON.parse(json) as TallyMessage;
      this.messages.push({ shard, seq, key: eid, message });
      if (!message.sender.includes(">")) push(this.sentIn, `${shard} ${first}`, nameOf(message));
    }
    const isDatapoint = isTask && !isMessage;
    const { v, target } = isDatapoint ? readValue(json) : { v: "", target: null };
    const line: Line = {
      shard,
      seq,
      task,
      at,
      kind: isDatapoint ? "datapoint" : (kinds.get(kind) ?? "other"),
      type,
      eid,
      attr: isDatapoint ? attr : "",
      v,
      t1: t1 === "" ? null : Number(t1),
      target,
      untilMs: kind === "t" ? Math.max(...Object.values(JSON.parse(attr) as Record<string, number>)) : 0,
      change: kind === "l" ? readLinkChange(attr) : null,
    };
    push(this.lines, line.shard, line);
    if (!isDatapoint) return line;
    if (attr === "x") push(this.sent, v, line);
    else push(this.derived, `${attr} ${keyOf(v)}`, line);
    return line;
  }

  #addOutbox(fields: readonly string[]): void {
    const content = fields.slice(6).join("\t");
    for (const task of content.split(outboxJoint)) {
      const [, target = "", , , , , , , value] = task.split("\t");
      if (value !== undefined && !target.startsWith("@")) this.outbox.add(keyOf(readValue(value).v));
    }
  }
}

const kinds: ReadonlyMap<string, Line["kind"]> = new Map([
  ["x", "delete"],
  ["t", "tokens"],
  ["l", "link"],
]);

/** A JSON text, mostly without an escape, or a link that carries one. */
function readValue(json: string): Pick<Line, "v" | "target"> {
  if (json.startsWith('"') && !json.includes("\\")) return { v: json.slice(1, -1), target: null };
  const value = JSON.parse(json) as string | { readonly eid: string; readonly data: string };
  return typeof value === "string" ? { v: value, target: null } : { v: value.data, target: value.eid };
}

/** The `ctx.key` that a derived value begins with. */
export function keyOf(value: string): string {
  return value.slice(0, value.indexOf("|"));
}

function push<K, V>(map: Map<K, V[]>, key: K, value: V): void {
  const known = map.get(key);
  if (known === undefined) map.set(key, [value]);
  else known.push(value);
}
