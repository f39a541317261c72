import { type SessionId, toSessionId } from "../../proto/ids.ts";
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

/** See {@link Store.openSession}. */
export async function openSession(control: Pool, session: SessionId, named: boolean): Promise<StoredSession> {
  const text = "select * from starling.open_session_1($1, $2)";
  const [row] = await control.query<{ session: string; named: boolean; closed: boolean }>(text, [session, named]);
  if (row === undefined) return { session, named, closed: false };
  return { session: toSessionId(row.session), named: row.named, closed: row.closed };
}

/** See {@link Store.closeSession}. A session that nobody opened is closed all the same. */
export async function closeSession(control: Pool, session: SessionId): Promise<void> {
  await control.query("select starling.close_session_1($1)", [session]);
}
