import type { Clock } from "../../proto/clock.ts";
import type { NodeId } from "../../proto/ids.ts";
import type { MembershipLog, MembershipView } from "./membership.ts";
import { contentOf, type KnownNode, planNodes, planView } from "./membership-plan.ts";
import type { Snapshot } from "./membership-snapshot.ts";

/** What a node sees of the cluster, from one snapshot to the next. */
export interface Sight {
  readonly nodes: ReadonlyMap<NodeId, KnownNode>;
  readonly view: MembershipView;
  onView(listener: (view: MembershipView) => void): () => void;
  /** Takes a snapshot over and tells what changed. `isThere`: which of its nodes to count. */
  observe(snapshot: Snapshot, isThere: (id: NodeId) => boolean): void;
}

/** A sight of nothing yet. */
export function createSight(clock: Clock, log: MembershipLog): Sight {
  const listeners = new Set<(view: MembershipView) => void>();
  let nodes: ReadonlyMap<NodeId, KnownNode> = new Map();
  let view: MembershipView = {
    ...{ revision: 0, nodes: [], suspects: new Set() },
    ...{ pins: new Map(), weights: new Map(), departed: new Map() },
  };
  let unreadable = new Map<string, number>();
  return {
    get nodes() {
      return nodes;
    },
    get view() {
      return view;
    },
    onView: (listener) => {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    observe: (snapshot, isThere) => {
      for (const { key, revision, problem } of snapshot.problems) {
        if (unreadable.get(key) === revision) continue;
        log.warn({ key, problem: problem.message }, "key could not be read and was ignored");
      }
      unreadable = new Map(snapshot.problems.map(({ key, revision }) => [key, revision]));
      nodes = new Map([...planNodes(nodes, snapshot, clock.now())].filter(([id]) => isThere(id)));
      const former = view;
      view = planView(nodes, snapshot);
      if (contentOf(former) !== contentOf(view)) for (const listener of listeners) tell(listener, view, log);
    },
  };
}

function tell(listener: (view: MembershipView) => void, view: MembershipView, log: MembershipLog): void {
  try {
    listener(view);
  } catch (error) {
    log.error({ error }, "listener of the view failed");
  }
}
