import { type SessionId, toSessionId } from "../../proto/ids.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import type { Pool } from "./connection.ts";
import type { StoredSession } from "./store.ts";

/** How a session is opened. */
export interface SessionOpening {
  /** It outlives its process. */
  readonly named: boolean;
  /** The name of the token by which it is opened; null: there are no tokens, so anybody may open any. */
  readonly holder: string | null;
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

/** See {@link Store.openSession}. */
export async function openSession(
  control: Pool,
  session: SessionId,
  { named, holder }: SessionOpening,
): Promise<StoredSession> {
  const text = "select * from starling.open_session_3($1, $2, $3)";
  const [row] = await control.query<StoredSession & { session: string }>(text, [session, named, holder]);
  if (row === undefined) throw heldByAnother(session);
  return { session: toSessionId(row.session), named: row.named, closed: row.closed, opening: row.opening };
}

/** The refusal of {@link Store.openSession}. */
export function heldByAnother(session: SessionId): StarlingError {
  const name = session.startsWith(keyPrefix)
    ? `the idempotency key ${session.slice(keyPrefix.length)}`
    : `session ${session}`;
  return new StarlingError("PERMISSION_DENIED", `${name} was begun under another token: use that one, or another name`);
}

/** Before an idempotency key, which is a session of one batch. */
export const keyPrefix = "key:";

/** See {@link Store.closeSession}. A session that nobody opened is closed all the same. */
export async function closeSession(control: Pool, session: SessionId): Promise<void> {
  await control.query("select starling.close_session_1($1)", [session]);
}
