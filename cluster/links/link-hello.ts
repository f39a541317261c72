import type { NodeId } from "../../proto/ids.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import { judgeProtocols } from "../protocol-range.ts";
import type { Hello } from "./link-frame.ts";
import type { LinkLimits, LinkOptions } from "./link-options.ts";
import type { Peer } from "./links.ts";

/** What this node says of itself to `meant`. */
export function planHello(options: LinkOptions, limits: LinkLimits, meant: NodeId, connection: number): Hello {
  const { clusterId, protocolMin, protocolMax, modelHash } = options;
  const { id, name } = options.self();
  const { creditBytes } = limits;
  return { clusterId, protocolMin, protocolMax, node: id, name, meant, modelHash, creditBytes, connection };
}

/** Why this node cannot talk to who said `hello`: WRONG_CLUSTER, VERSION_MISMATCH, UNAVAILABLE; null: it can. */
export function judgeHello(hello: Hello, options: LinkOptions): StarlingError | null {
  const { clusterId } = options;
  const { id, name } = options.self();
  if (hello.clusterId !== clusterId) {
    return new StarlingError(
      "WRONG_CLUSTER",
      `node ${hello.name} belongs to cluster ${hello.clusterId}, not ${clusterId}`,
    );
  }
  const mismatch = judgeProtocols({ ...options, name }, hello);
  if (mismatch !== null) return mismatch;
  if (hello.meant !== id) {
    return new StarlingError("UNAVAILABLE", `here is node ${name} with the id ${id}, not ${hello.meant}`);
  }
  if (hello.node === id) return new StarlingError("UNAVAILABLE", `node ${name} has dialled itself`);
  return null;
}

/** Why who answers is not who was meant; null: it is. */
export function judgeAnswer(hello: Hello, meant: Peer): StarlingError | null {
  if (hello.node === meant.id) return hello.name === meant.name ? null : otherName(hello.name, meant);
  return new StarlingError("UNAVAILABLE", `node ${hello.name} with the id ${hello.node} answers for ${meant.id}`);
}

export function otherName(said: string, { id, name }: Peer): StarlingError {
  return new StarlingError("UNAUTHENTICATED", `node ${id} is known as ${name}, and calls itself ${said}`);
}
