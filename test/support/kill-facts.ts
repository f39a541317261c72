import { isDeepStrictEqual } from "node:util";
import type { Connection } from "../../actors/store/connection.ts";
import { readWhole } from "../../actors/store/load.ts";
import type { EntityKey } from "../../actors/store/store.ts";
import { connectAll } from "./databases.ts";
import type { EntityFact, KillFacts, LogFact, RawFact, StateFact } from "./kill-checker.ts";
import type { KillDatapoint } from "./kill-model.ts";
import { fieldsOf } from "./state-fields.ts";

/** The databases of a node as a test looks at them. */
export interface KillDatabase extends AsyncDisposable {
  /** Logs that are not processed and delivered to their ends. None: there was an instant at which all were. */
  openLogs(): Promise<LogFact[]>;
  /** All that is stored. */
  facts(): Promise<Omit<KillFacts, "sent" | "acknowledged">>;
}

/** Opens one connection to each. */
export function openKillDatabase(urls: readonly string[]): KillDatabase {
  const limits = { statementTimeoutMs: 60_000, connectTimeoutMs: 10_000 };
  const connections = connectAll(urls, { application: "kill-test", ...limits });
  const read = <Row extends object>(text: string): Promise<Row[]> => connections.query<Row>(text);
  const logs = () => read<LogFact>(logsText);
  return {
    openLogs: async () => {
      // Work goes from one database to another behind a reader's back. What two readings in a row agree on was so in
      // all of them in between, since logs and watermarks only grow.
      for (let last: LogFact[] | null = null; ; ) {
        const now = await logs();
        const open = now.filter(({ end, watermark, delivered }) => end !== watermark || end !== delivered);
        if (open.length > 0 || urls.length === 1 || isDeepStrictEqual(now, last)) return open;
        last = now;
      }
    },
    facts: async () => {
      const entities = (await Promise.all(connections.each.map(readEntities))).flat();
      const history = await read<{ type: string; eid: string; body: string }>(historyText);
      const refused = await read<{ type: string; eid: string }>(refusedText);
      const letters = await read<{ letter: string }>(lettersText);
      return {
        raw: await read<RawFact>(rawText),
        entities: entities.map(toEntityFact),
        history: history.flatMap(readHistory),
        refused: refused.map(({ type, eid }) => `${type} ${eid}`),
        deadLetters: letters.map(({ letter }) => letter),
        logs: await logs(),
      };
    },
    [Symbol.asyncDispose]: () => connections.close(),
  };
}

const logsText = `
  select l.shard, max(l.last_seq)::float8 as end, coalesce(max(p.watermark), 0)::float8 as watermark,
      coalesce(max(p.delivered), 0)::float8 as delivered
    from starling.log l left join starling.progress p using (shard) group by l.shard order by l.shard`;
const rawText = `
  select shard, seq::float8 as seq, type, eid, attr, src, v, starling.to_ms_1(t1) as t1, starling.to_ms_1(t2) as t2, c
    from starling.raw order by shard, seq`;
const entitiesText = `
  select shard, type, eid, applied::float8 as applied, state from starling.entity where not tombstone`;
const historyText = "select type, eid, body from starling.history order by shard, type, eid, seq";
const refusedText = "select type, eid from starling.refused";
const lettersText = `
  select format('%s/%s %s %s %s: %s', shard, seq, kind, hook, code, error) as letter from starling.dead_letter`;

async function readEntities(connection: Connection): Promise<(EntityKey & EntityRow)[]> {
  return await readWhole(connection, await connection.query<EntityKey & EntityRow>(entitiesText));
}

interface EntityRow {
  readonly applied: number;
  readonly state: string;
}

function toEntityFact({ type, eid, applied, state }: EntityKey & EntityRow): EntityFact {
  return { type, eid, applied, state: fieldsOf<StateFact>(state) };
}

/** The lines of one row: attr, src, t1, t2, c, json. */
function readHistory({ type, eid, body }: { type: string; eid: string; body: string }): KillDatapoint[] {
  return body.split("\n").map((line) => {
    const [attr = "", src = "", t1, t2, c, json = "null"] = line.split("\t");
    const v = JSON.parse(json) as KillDatapoint["v"];
    return { type, eid, attr, src, v, t1: Number(t1), t2: Number(t2), c: Number(c) };
  });
}
