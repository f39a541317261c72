import { StarlingError, toStarlingError } from "../proto/starling-error.ts";

/** The same error, its message opened by the attribute or id it is about. */
export function namedError(name: string, error: unknown): StarlingError {
  const known = toStarlingError(error);
  return new StarlingError(known.code, `${name}: ${known.message}`, { cause: error });
}

/** The same for the value of an attribute: a bad id within it is a bad value. */
export function valueError(name: string, error: unknown): StarlingError {
  const known = toStarlingError(error);
  const code = known.code === "INVALID_EID" ? "INVALID_VALUE" : known.code;
  return new StarlingError(code, `${name}: ${known.message}`, { cause: error });
}
