import { StarlingError } from "../../proto/starling-error.ts";

/** Classes that another attempt can cure; 25006 is a server that is only read, during a fail-over. */
const again = /^(08|40|53|55|57|58)|^25006$|^0A000$/;
const refused = /^(22|23|54)/;
/** Codes of the server, each of which has a digit; EPIPE, of the system, is none. */
const sqlState = /^(?=.*\d)[0-9A-Z]{5}$/;

/**
 * Whether the server has run out of transaction ids, or of their groups: of the class of limits too, but not the data's fault. Where
 * in the server an error was raised is told in no language.
 */
function isExhausted(error: unknown): boolean {
  const { file } = error as { readonly file?: unknown };
  return file === "varsup.c" || file === "multixact.c";
}

/** A StarlingError of what the package or the server raised. */
export function translate(error: unknown): StarlingError {
  if (error instanceof StarlingError) return error;
  const message = error instanceof Error && error.message !== "" ? error.message : String(error);
  const code = codeOf(error);
  if (code === null) return new StarlingError("INTERNAL", message, { cause: error });
  if (!sqlState.test(code) || again.test(code) || isExhausted(error))
    return new StarlingError("STORE", message, { cause: error });
  if (refused.test(code)) return new StarlingError("STORE_REFUSED", message, { cause: error });
  return new StarlingError("STORE_FATAL", `${message} (${code})`, { cause: error });
}

/** The SQLSTATE, or the package's or the system's code (CONNECTION_CLOSED, ECONNREFUSED), of an error or its cause. */
export function codeOf(error: unknown): string | null {
  if (error instanceof StarlingError) return codeOf(error.cause);
  const code = (error as { code?: unknown } | null | undefined)?.code;
  if (typeof code === "string") return code;
  const inner = error instanceof AggregateError ? error.errors[0] : undefined;
  return inner === undefined ? null : codeOf(inner);
}

/** Whether the server has said that it goes, or the package or the system that it is gone. */
export function endsSession(code: string | null): boolean {
  return code !== null && (!sqlState.test(code) || code.startsWith("57P0"));
}

/** The first two digits of an SQLSTATE stand for its class; other codes are few. */
export function classOf(error: unknown): string {
  const code = codeOf(error);
  if (code === null) return "unknown";
  return sqlState.test(code) ? code.slice(0, 2) : code;
}
