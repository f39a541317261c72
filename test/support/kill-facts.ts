import { createConnection } from "../../actors/store/connection.ts";
import { readWhole } from "../../actors/store/load.ts";
import type { EntityKey } from "../../actors/store/store.ts";
import type { EntityFact, KillFacts, LogFact, RawFact, StateFact } from "./kill-checker.ts";
import type { KillDatapoint } from "./kill-model.ts";

/** The database of a node as a test looks at it. */
export interface KillDatabase extends AsyncDisposable {
  /** The ends of the logs that hold anything. */
  logs(): Promise<LogFact[]>;
  /** All that is stored. */
  facts(): Promise<Omit<KillFacts, "sent" | "acknowledged">>;
}

/** Opens one connection. */
export function openKillDatabase(url: string): KillDatabase {
  const connection = createConnection({
    url,
    application: "kill-test",
    statementTimeoutMs: 60_000,
    connectTimeoutMs: 10_000,
  });
  const read = <Row extends object>(text: string): Promise<Row[]> => connection.query<Row>(text);
  const logs = () => read<LogFact>(logsText);
  return {
    logs,
    facts: async () => {
      const entities = await readWhole(connection, await read<EntityKey & EntityRow>(entitiesText));
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
    [Symbol.asyncDispose]: () => connection.close(),
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

interface EntityRow {
  readonly applied: number;
  readonly state: string;
}

function toEntityFact({ type, eid, applied, state }: EntityKey & EntityRow): EntityFact {
  return { type, eid, applied, state: JSON.parse(state) as Record<string, StateFact> };
}

/** The lines of one row: attr, src, t1, t2, c, json. */
function readHistory({ type, eid, body }: { type: string; eid: string; body: string }): KillDatapoint[] {
  return body.split("\n").map((line) => {
    const [attr = "", src = "", t1, t2, c, json = "null"] = line.split("\t");
    const v = JSON.parse(json) as KillDatapoint["v"];
    return { type, eid, attr, src, v, t1: Number(t1), t2: Number(t2), c: Number(c) };
  });
}
