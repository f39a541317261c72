import type { NodeId } from "../proto/ids.ts";
import type { Links } from "./links/links.ts";
import type { Membership, MembershipView } from "./membership/membership.ts";

/** Who is there, as far as a node plans by it. */
export type Members = Pick<Membership, "self" | "view" | "onView">;

/**
 * The members as the coordinator tells them, but for those that said farewell on their links: they count as leaving from then on,
 * so that what they released finds its next owner also while the coordinator is away and the view stands still. What they own
 * still stays theirs: that a node is dead is said by the coordinator alone. One that is reached again is as it tells.
 */
export function hearFarewells(
  membership: Members,
  links: Pick<Links, "on" | "isUp" | "hasLeft">,
): Members & { close(): void } {
  const left = new Set<NodeId>();
  const listeners = new Set<(view: MembershipView) => void>();
  const see = (): MembershipView => (left.size === 0 ? membership.view : withLeaving(membership.view, left));
  const tell = (): void => {
    for (const listener of listeners) listener(see());
  };
  const ends = [
    membership.onView(({ nodes }) => {
      const ids = new Set(nodes.map(({ id }) => id));
      for (const id of left) if (!ids.has(id)) left.delete(id);
      tell();
    }),
    links.on({
      onMessage: () => {},
      onUp: (peer) => {
        if (left.delete(peer)) tell();
      },
      onDown: (peer) => {
        if (left.has(peer) || links.isUp(peer) || !links.hasLeft(peer)) return;
        if (!membership.view.nodes.some(({ id }) => id === peer)) return;
        left.add(peer);
        tell();
      },
    }),
  ];
  return {
    get self() {
      return membership.self;
    },
    get view() {
      return see();
    },
    onView: (listener) => {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    close: () => {
      for (const end of ends.splice(0)) end();
    },
  };
}

function withLeaving(view: MembershipView, left: ReadonlySet<NodeId>): MembershipView {
  const nodes = view.nodes.map((node) => (left.has(node.id) ? { ...node, state: "leaving" as const } : node));
  return { ...view, nodes };
}
