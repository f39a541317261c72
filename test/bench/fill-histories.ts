import type { Connection } from "../../actors/store/connection.ts";
import { epochMs } from "./things.ts";

/** Which things get how long a history of `o_level`. */
export interface Filling {
  readonly firstEntity: number;
  readonly entities: number;
  /** Datapoints afterwards. */
  readonly stored: number;
}

const linesPerSegment = 5;
const entitiesPerStatement = 10;
/** Above every seq that the node has given; the watermark stands above all of the filling. */
const firstSeq = 1_000_000;
const watermark = 100_000_000;

/**
 * Writes the histories of things that have generation 0 of `o_level`, in the form that flushes store, with values as
 * `thingDatapoint` decides them; the record counts them all. To be done while no node runs: the log's partitions count as
 * dropped, which is where entities with long histories come from.
 */
export async function fillHistories(connection: Connection, filling: Filling): Promise<void> {
  const { firstEntity, entities, stored } = filling;
  for (let at = firstEntity; at < firstEntity + entities; at += entitiesPerStatement) {
    const end = Math.min(firstEntity + entities, at + entitiesPerStatement);
    await connection.query(historyText, [at, end, stored]);
    await connection.query(stateText, [at, end, stored]);
  }
  await connection.query("update starling.progress set watermark = $1, delivered = $1", [watermark]);
}

const things = `(
  select shard, type, eid, substr(eid, 7)::bigint as n from starling.entity
    where eid = any(select 'thing-' || i from generate_series($1::int, $2::int - 1) i)
)`;
/** Value and times of thing `n` in generation `g`. */
const value = "((e.n * 31 + g * 7919) % 1000003) || '.5'";
const t1 = `(${epochMs} + g * 3600000 + e.n)`;

const historyText = `insert into starling.history (shard, type, eid, seq, body)
  select e.shard, e.type, e.eid, ${firstSeq} + s, (
      select string_agg(e'o_level\\tbench\\t' || ${t1} || e'\\t' || ${t1} + 60000 || e'\\t1\\t' || ${value}, e'\\n'
          order by g)
        from generate_series(1 + s * ${linesPerSegment}, least((s + 1) * ${linesPerSegment}, $3::bigint - 1)) g
    )
    from ${things} e, generate_series(0::bigint, ($3::bigint - 2) / ${linesPerSegment}) s
    where $3::bigint > 1
    order by e.shard, e.eid, s`;

const stateText = `update starling.entity t set applied = ${watermark},
    state = '{"o_level":{"v":' || ${value} || ',"t1":' || ${t1} || ',"t2":' || ${t1} + 60000 || ',"c":1,"n":' ||
      $3::bigint || '}}'
  from ${things} e, (select $3::bigint - 1) l(g)
  where t.shard = e.shard and t.type = e.type and t.eid = e.eid`;
