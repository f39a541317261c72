import type { NodeRecord } from "../cluster/membership/membership.ts";
import type { StateForm } from "./lane/entity-state.ts";

/** Since when nodes read short states. */
const shortSince = 2;

/**
 * How records are written while these nodes are there, each of which may own them next: short if all of them read that. Who may
 * come later does: the schema is too new for a version that does not.
 */
export function stateFormOf(nodes: readonly Pick<NodeRecord, "protocolMax">[]): StateForm {
  return nodes.length > 0 && nodes.every(({ protocolMax }) => protocolMax >= shortSince) ? "short" : "long";
}
