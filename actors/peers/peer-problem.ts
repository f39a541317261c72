import type { Problem } from "../../proto/gen/peer_pb.ts";
import { type ErrorCode, errorCodes, StarlingError } from "../../proto/starling-error.ts";

/** An error as another node is told it. */
export function writeProblem({ code, message }: StarlingError): Pick<Problem, "code" | "message"> {
  return { code, message: message.length > messageMaxLength ? `${message.slice(0, messageMaxLength)}…` : message };
}

/** The error that another node told; a code that only a newer node knows becomes INTERNAL. */
export function readProblem({ code, message }: Pick<Problem, "code" | "message">): StarlingError {
  if (isErrorCode(code)) return new StarlingError(code, message);
  return new StarlingError("INTERNAL", `${code}: ${message}`);
}

const messageMaxLength = 4_000;

function isErrorCode(code: string): code is ErrorCode {
  return Object.hasOwn(errorCodes, code);
}
