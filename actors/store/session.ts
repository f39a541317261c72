import { type SessionId, toSessionId } from "../../proto/ids.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import type { Pool } from "./connection.ts";
import type { StoredSession } from "./store.ts";

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

/** See {@link Store.openSession}. */
export async function openSession(control: Pool, session: SessionId, named: boolean): Promise<StoredSession> {
  const text = "select * from starling.open_session_2($1, $2)";
  const [row] = await control.query<StoredSession & { session: string }>(text, [session, named]);
  if (row === undefined) throw new StarlingError("STORE", `session ${session} was neither opened nor found`);
  return { session: toSessionId(row.session), named: row.named, closed: row.closed, opening: row.opening };
}

/** See {@link Store.closeSession}. A session that nobody opened is closed all the same. */
export async function closeSession(control: Pool, session: SessionId): Promise<void> {
  await control.query("select starling.close_session_1($1)", [session]);
}
