import { StarlingError } from "../proto/starling-error.ts";

/** The versions of the protocol between nodes that one of them speaks. */
export interface ProtocolRange {
  readonly name: string;
  readonly protocolMin: number;
  readonly protocolMax: number;
}

/** VERSION_MISMATCH for two nodes that cannot talk; null: they can. */
export function judgeProtocols(own: ProtocolRange, other: ProtocolRange): StarlingError | null {
  if (own.protocolMin <= other.protocolMax && other.protocolMin <= own.protocolMax) return null;
  const text = `${inWords(other)}, ${inWords(own)}: replace nodes by way of a release that speaks both`;
  return new StarlingError("VERSION_MISMATCH", `no protocol version in common: ${text}`);
}

function inWords({ name, protocolMin, protocolMax }: ProtocolRange): string {
  return `node ${name} speaks ${protocolMin} to ${protocolMax}`;
}
