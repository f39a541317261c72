import { type SessionId, toSessionId } from "../../proto/ids.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import type { Pool } from "./connection.ts";
import { forgetFunctions, keyPrefix, sessionLifeMs } from "./session-life.ts";
import type { StoredSession } from "./store.ts";

/** How a session is opened. */
export interface SessionOpening {
  /** It outlives its process. */
  readonly named: boolean;
  /** The name of the token by which it is opened; null: there are no tokens, so anybody may open any. */
  readonly holder: string | null;
  /** Of the one batch of an idempotency key: it is kept, and another one's is refused (R10). Default: there may be any. */
  readonly hash?: string;
}

export interface StoreOpening extends SessionOpening {
  /** Whether it may begin here: its name says so, or its id has just been drawn. Else it has to be known. */
  readonly begins: boolean;
}

/** The update that changes nothing makes `returning` answer for a session that is there already. */
export const sessionFunctions = String.raw`
create function starling.open_session_1(p_session text, p_named boolean)
  returns table (session text, named boolean, closed boolean) language sql begin atomic
  insert into starling.session as s (session, named, closed) values (p_session, p_named, false)
    on conflict (session) do update set closed = s.closed
    returning s.session, s.named, s.closed;
end;

create function starling.close_session_1(p_session text) returns void language sql begin atomic
  insert into starling.session as s (session, named, closed) values (p_session, false, true)
    on conflict (session) do update set closed = true where not s.closed;
end;
`;

/** In step 3. Openings are counted: of two connections to two nodes the one opened later is the newer, whoever hears of it first. */
export const sessionOpenings = String.raw`
alter table starling.session add column opening int not null default 0;

create function starling.open_session_2(p_session text, p_named boolean)
  returns table (session text, named boolean, closed boolean, opening int) language sql begin atomic
  insert into starling.session as s (session, named, closed, opening) values (p_session, p_named, false, 1)
    on conflict (session) do update set opening = s.opening + 1
    returning s.session, s.named, s.closed, s.opening;
end;
`;

/** In step 6. Who has begun a session under a token keeps it; one that was begun without is whose who comes first with one. */
export const sessionHolders = String.raw`
alter table starling.session add column holder text;

create function starling.open_session_3(p_session text, p_named boolean, p_holder text)
  returns table (session text, named boolean, closed boolean, opening int) language sql begin atomic
  insert into starling.session as s (session, named, closed, opening, holder)
    values (p_session, p_named, false, 1, p_holder)
    on conflict (session) do update set opening = s.opening + 1, holder = coalesce(s.holder, p_holder)
      where s.holder is null or p_holder is null or s.holder = p_holder
    returning s.session, s.named, s.closed, s.opening;
end;
`;

/**
 * In step 10. An idempotency key keeps the hash of its batch, so that another one is refused wherever it would go (R10). Its batch
 * is numbered by the second in which the key was first seen: one that was forgotten and comes back goes on above what its channels
 * may still know. One from before this step has no hash, and number 1.
 *
 * A key is over when its life (`session-life.ts`) has passed since it was first seen, and then begins anew; a session with an id
 * that a node has drawn, when nobody has used it for so long, and then it is closed. A name is known for ever.
 */
export const sessionLife = String.raw`
alter table starling.session add column hash text, add column used_at timestamptz not null default now();
alter table starling.session alter column used_at set default clock_timestamp();
create index session_by_use on starling.session (used_at) where not named;
create index key_by_age on starling.session (opened_at) where session like '${keyPrefix}%';

create function starling.open_session_4(p_session text, p_named boolean, p_holder text, p_hash text, p_begins boolean,
  p_life_ms float8) returns table (session text, named boolean, closed boolean, opening int, number float8,
    refused text) language plpgsql as $$
#variable_conflict use_column
declare
  v_since timestamptz := clock_timestamp() - make_interval(secs => p_life_ms / 1000);
begin
  delete from starling.session s where s.session = p_session and s.opened_at < v_since and s.session like '${keyPrefix}%';
  update starling.session s set closed = true
    where s.session = p_session and s.used_at < v_since and not s.named and not s.closed;
  if p_begins then
    insert into starling.session (session, named, closed, opening, hash) values (p_session, p_named, false, 0, p_hash)
      on conflict do nothing;
  end if;
  return query update starling.session s
    set opening = s.opening + 1, used_at = clock_timestamp(), holder = coalesce(s.holder, p_holder)
    where s.session = p_session and (s.holder is null or p_holder is null or s.holder = p_holder)
      and (s.hash is null or p_hash is null or s.hash = p_hash)
    returning s.session, s.named, s.closed, s.opening,
      case when s.hash is null then 1 else floor(date_part('epoch', s.opened_at)) end, null::text;
  if not found then
    return query select s.session, s.named, s.closed, s.opening, 0::float8,
        case when s.holder <> p_holder then 'held' else 'changed' end
      from starling.session s where s.session = p_session;
  end if;
end
$$;

-- Replaced: nodes of the version before number the batch of every key 1. One that this version has begun they leave to it.
create or replace function starling.open_session_3(p_session text, p_named boolean, p_holder text)
  returns table (session text, named boolean, closed boolean, opening int) language plpgsql as $$
#variable_conflict use_column
begin
  if exists (select from starling.session s where s.session = p_session and s.hash is not null) then
    raise exception 'an idempotency key that a newer node has begun: send again, to that one' using errcode = '55000';
  end if;
  return query insert into starling.session as s (session, named, closed, opening, holder)
    values (p_session, p_named, false, 1, p_holder)
    on conflict (session) do update
      set opening = s.opening + 1, used_at = clock_timestamp(), holder = coalesce(s.holder, p_holder)
      where s.holder is null or p_holder is null or s.holder = p_holder
    returning s.session, s.named, s.closed, s.opening;
end
$$;

create function starling.use_session_1(p_session text) returns void language sql begin atomic
  update starling.session set used_at = clock_timestamp() where session = p_session;
end;
${forgetFunctions}`;

/** See {@link Store.openSession}. */
export async function openSession(
  control: Pool,
  session: SessionId,
  { named, holder, hash, begins }: StoreOpening,
): Promise<StoredSession> {
  const text = "select * from starling.open_session_4($1, $2, $3, $4, $5, $6)";
  const [row] = await control.query<SessionRow>(text, [session, named, holder, hash ?? null, begins, sessionLifeMs]);
  if (row === undefined) throw closedSession(session);
  if (row.refused === "held") throw heldByAnother(session);
  if (row.refused === "changed") throw changedKey(session);
  const { closed, opening, number } = row;
  return { session: toSessionId(row.session), named: row.named, closed, opening, number };
}

interface SessionRow {
  readonly session: string;
  readonly named: boolean;
  readonly closed: boolean;
  readonly opening: number;
  readonly number: number;
  /** Why it is not opened, and unchanged; null: it is. */
  readonly refused: "held" | "changed" | null;
}

/** The refusals of {@link Store.openSession}. */
export function heldByAnother(session: SessionId): StarlingError {
  const text = `${nameOf(session)} was begun under another token: use that one, or another name`;
  return new StarlingError("PERMISSION_DENIED", text);
}

export function changedKey(session: SessionId): StarlingError {
  return new StarlingError("BATCH_CHANGED", `${nameOf(session)} came back with other content`);
}

/** Of a session that is closed, or not known. */
export function closedSession(session: SessionId): StarlingError {
  const text = `${nameOf(session)} was closed, or nobody used it for a week: begin another one`;
  return new StarlingError("SESSION_CLOSED", text);
}

function nameOf(session: SessionId): string {
  return session.startsWith(keyPrefix)
    ? `the idempotency key ${session.slice(keyPrefix.length)}`
    : `session ${session}`;
}

/** See {@link Store.closeSession}. A session that nobody opened is closed all the same. */
export async function closeSession(control: Pool, session: SessionId): Promise<void> {
  await control.query("select starling.close_session_1($1)", [session]);
}

/** See {@link Store.findClosed}. No id holds a control character (`problemOfSessionName`). */
export async function findClosed(control: Pool, sessions: readonly SessionId[]): Promise<SessionId[]> {
  const text = String.raw`select session from starling.session
    where closed and session = any(string_to_array($1, e'\x1f'))`;
  const rows = await control.query<{ session: string }>(text, [sessions.join("\x1f")]);
  return rows.map(({ session }) => toSessionId(session));
}

/** See {@link Store.useSession}. */
export async function useSession(control: Pool, session: SessionId): Promise<void> {
  await control.query("select starling.use_session_1($1)", [session]);
}
