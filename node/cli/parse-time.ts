import { unixMs } from "../../modules/time-text.ts";
import { StarlingError } from "../../proto/starling-error.ts";

/** A time of the command line in Unix milliseconds. Throws INVALID_ARGUMENT. */
export function parseTime(text: string): number {
  const ms = unixMs(text);
  if (ms === null) throw new StarlingError("INVALID_ARGUMENT", `${JSON.stringify(text)} is not a time.`);
  return ms;
}
