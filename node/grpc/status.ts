import { Metadata, type StatusObject } from "@grpc/grpc-js";
import { errorCodes, toStarlingError } from "../../proto/starling-error.ts";

/** The name of the metadata that carries a StarlingError's code. */
export const codeMetadata = "starling-code";

/** An error as a gRPC status: `CODE: text`, and the code alone in the metadata `starling-code`. */
export function toStatus(error: unknown): StatusObject {
  const { code, message } = toStarlingError(error);
  const metadata = new Metadata();
  metadata.set(codeMetadata, code);
  return { code: errorCodes[code].status, details: `${code}: ${message}`, metadata };
}
