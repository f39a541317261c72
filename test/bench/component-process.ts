import { type Connection, createConnection } from "../../actors/store/connection.ts";
import type { CallbackRegistrar } from "../../modules/registrar.ts";
import type { LinkedValue } from "../../modules/snapshot-hook.ts";
import { configModel } from "../support/config-model.ts";
import { rssPeakMb } from "../support/process-usage.ts";
import { openSnapshotBed } from "./snapshot-bed.ts";
import { mulberry32 } from "./things.ts";

/* Writes the records of one component into a database, URL ENTITIES, computes their snapshots, and tells what that took. */

export interface ComponentReport {
  readonly bytes: number;
  readonly seconds: number;
  readonly rssPeakMb: number;
  readonly written: number;
  readonly componentMax: number;
  readonly hookCalls: number;
  /** Snapshots that are not what they are to be. */
  readonly differences: number;
}

const [url = "", count = ""] = process.argv.slice(2);
const entities = Number(count);
const start = Date.UTC(2026, 0, 1);
const textLength = 100_000;
const model = configModel({
  ring: { next: "plain link<ring>", size: "plain int", text: "plain string", twice: "plain int", beyond: "plain int" },
});

function registerHooks(door: CallbackRegistrar): void {
  door.registerCorrelationHook(
    function twice(_, values) {
      values.twice = 2 * Number(values.size);
      return null;
    },
    "ring",
    { dependsOn: [["size"]], mayChange: [["twice"]], pure: true },
  );
  door.registerCorrelationHook(
    function beyond(_, values) {
      values.beyond = Number((values.next as LinkedValue).record?.twice);
      return null;
    },
    "ring",
    { dependsOn: [["next", "twice"]], mayChange: [["beyond"]], pure: true },
  );
}

/** A text that does not compress, a piece of a longer one. */
function createTexts(): (number: number) => string {
  const random = mulberry32(7);
  const text = Array.from({ length: 2 * textLength }, () => String.fromCharCode(97 + Math.floor(random() * 26))).join(
    "",
  );
  return (number) => text.slice(number % textLength, (number % textLength) + textLength);
}

async function withConnection<T>(of: string, run: (connection: Connection) => Promise<T>): Promise<T> {
  const options = { url: of, application: "bench", statementTimeoutMs: 600_000, connectTimeoutMs: 10_000 };
  const connection = createConnection(options);
  try {
    return await run(connection);
  } finally {
    await connection.close();
  }
}

const createDatabase = async () => ({ url, close: async () => {} });
const bed = await openSnapshotBed({ createDatabase, withConnection }, model, registerHooks, { batch: 50 });
try {
  const textOf = createTexts();
  await bed.fill("ring", entities, (number) => ({
    eid: `ring-${number}`,
    datapoints: [
      { attr: "next", v: { eid: `ring-${(number + 1) % entities}` } },
      { attr: "size", v: number },
      { attr: "text", v: textOf(number) },
    ],
  }));
  const { run, seconds } = await bed.run(true, start);
  const [found] = await bed.query<{ count: number }>(
    `select count(*)::int as count from starling.snapshot s, lateral (select substr(s.eid, 6)::int) n(number)
      where s.to_tick is null and length(s.body->>'text') = ${textLength} and (s.body->>'twice')::int = 2 * n.number
        and (s.body->>'beyond')::int = 2 * ((n.number + 1) % ${entities})`,
  );
  const report: ComponentReport = {
    ...{ bytes: entities * textLength, seconds, rssPeakMb: rssPeakMb(process.pid), written: run.counts.written ?? 0 },
    ...{ componentMax: run.counts.componentMax ?? 0, differences: entities - (found?.count ?? 0) },
    hookCalls: Object.values(run.hooks).reduce((sum, { calls }) => sum + calls, 0),
  };
  process.stdout.write(JSON.stringify(report));
} finally {
  await bed.close();
}
