import { toJson } from "@bufbuild/protobuf";
import { callUnary, type Dialled } from "./client-call.ts";
import type { ClusterStatus, ShardExplanation } from "./cluster-status.ts";
import { Admin, ClusterStatusReplySchema, WhyReplySchema } from "./gen/starling_pb.ts";

/** The calls of Admin that concern the whole cluster; each raises the StarlingError that the node sends. */
export interface ControlClient {
  clusterStatus(): Promise<ClusterStatus>;
  why(subject: number | { readonly type: string; readonly eid: string }): Promise<ShardExplanation>;
  /** Pins a shard to the node of a name; null takes the pin away. */
  move(shard: number, node: string | null): Promise<void>;
  /** Sets a node's weight; null takes back what was set. No groups: all. */
  weigh(node: string, weight: number | null, groups?: readonly string[]): Promise<void>;
  /** Weight 0 in all groups; returns the shards whose pins were taken away. */
  drain(node: string): Promise<readonly number[]>;
}

/** `connected` gives the connection to call on; `deadlineMs` bounds each call. */
export function createControlClient(connected: () => Promise<Dialled>, deadlineMs: number): ControlClient {
  const { method } = Admin;
  // Numbers that are 0 and texts that are empty belong to the answer.
  const whole = { alwaysEmitImplicit: true };
  return {
    clusterStatus: async () => {
      const reply = await callUnary(await connected(), method.clusterStatus, {}, deadlineMs);
      return toJson(ClusterStatusReplySchema, reply, whole) as unknown as ClusterStatus;
    },
    why: async (subject) => {
      const asked =
        typeof subject === "number"
          ? ({ case: "shard", value: subject } as const)
          : ({ case: "entity", value: subject } as const);
      const reply = await callUnary(await connected(), method.why, { subject: asked }, deadlineMs);
      return toJson(WhyReplySchema, reply, whole) as unknown as ShardExplanation;
    },
    move: async (shard, node) => {
      await callUnary(await connected(), method.move, { shard, node: node ?? "" }, deadlineMs);
    },
    weigh: async (node, weight, groups = []) => {
      const request = { node, groups: [...groups], ...(weight !== null && { weight }) };
      await callUnary(await connected(), method.weigh, request, deadlineMs);
    },
    drain: async (node) => (await callUnary(await connected(), method.drain, { node }, deadlineMs)).unpinned,
  };
}
