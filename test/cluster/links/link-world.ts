import type { LinkOptions } from "../../../cluster/links/link-options.ts";
import type { NodeId } from "../../../proto/ids.ts";
import type { LinkedNode, LinkNews, NodeSettings } from "./links-contract.ts";

/** Hears what links tell; `nowMs` stamps it. */
export function recordNews(id: NodeId, links: LinkedNode["links"], nowMs: () => number): LinkedNode {
  const news: LinkNews[] = [];
  const received: { from: NodeId; text: string }[] = [];
  links.on({
    onMessage: (from, body) => void received.push({ from, text: new TextDecoder().decode(body) }),
    onUp: (peer) => void news.push({ kind: "up", peer, code: "", atMs: nowMs() }),
    onDown: (peer, { code }) => void news.push({ kind: "down", peer, code, atMs: nowMs() }),
    onDirect: (peer, isReachable) => void news.push({ kind: isReachable ? "direct" : "indirect", peer, atMs: nowMs() }),
  });
  return { id, links, news, received };
}

/** Settings of a test's node as options, but for who it is and its clock. */
export function optionsOf(settings: NodeSettings = {}): Omit<LinkOptions, "self" | "clock"> {
  const [protocolMin, protocolMax] = settings.protocol ?? [1, 1];
  return {
    clusterId: settings.clusterId ?? "c1",
    protocolMin,
    protocolMax,
    modelHash: settings.modelHash ?? "m1",
    limits: settings.limits ?? {},
    log: { info: () => {}, warn: () => {}, error: () => {} },
    counters: { add: () => {} },
  };
}
