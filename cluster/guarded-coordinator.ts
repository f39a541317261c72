import { StarlingError } from "../proto/starling-error.ts";
import type { Condition, Coordinator, KeyValue, Write } from "./coordinator.ts";

/**
 * A coordinator that holds what it held when the cluster was created: all keys of a cluster stand beside a mark, and where
 * the mark is gone or another one, something was lost, and nothing of the rest is believed or changed. An etcd that comes
 * back empty is then as one that does not answer: nodes serve on, and nobody is taken for dead (R22).
 */
export interface Mark {
  readonly key: string;
  readonly value: string;
  readonly revision: number;
}

/** Reads the mark under `prefix`, and makes it when `create` says so. Null: there is none. */
export async function readMark(
  coordinator: Coordinator,
  prefix: string,
  create: (() => string) | null,
): Promise<Mark | null> {
  const key = `${prefix}mark`;
  const read = async (): Promise<Mark | null> => {
    const { entries } = await coordinator.list(key);
    const found = entries.find((entry) => entry.key === key);
    return found === undefined ? null : { key, value: found.value, revision: found.revision };
  };
  const found = await read();
  if (found !== null || create === null) return found;
  await coordinator.commit([{ key, revision: 0 }], [{ kind: "put", key, value: create(), lease: null }]);
  return read();
}

/** The coordinator as long as the mark stands; else its calls raise UNAVAILABLE. Lists that hold the mark are checked by it. */
export function guardCoordinator(
  coordinator: Coordinator,
  mark: Mark,
  onProblem: (problem: StarlingError | null) => void,
): Coordinator {
  let problem: StarlingError | null = null;
  const judge = (found: KeyValue | undefined): void => {
    const stands = found?.value === mark.value && found.revision === mark.revision;
    if (stands && problem !== null) {
      problem = null;
      onProblem(null);
    }
    if (stands) return;
    if (problem === null) {
      const what = found === undefined ? "it is empty, or it was restored to before" : "it was made anew";
      problem = new StarlingError("UNAVAILABLE", `etcd is not the one that this cluster was created with: ${what}`);
      onProblem(problem);
    }
    throw problem;
  };
  return {
    identity: () => coordinator.identity(),
    grant: (ttlMs) => coordinator.grant(ttlMs),
    keepAlive: (lease) => coordinator.keepAlive(lease),
    revoke: (lease) => coordinator.revoke(lease),
    watch: (prefix, onHint) => coordinator.watch(prefix, onHint),
    close: () => coordinator.close(),
    list: async (prefix) => {
      const listing = await coordinator.list(prefix);
      if (mark.key.startsWith(prefix)) judge(listing.entries.find(({ key }) => key === mark.key));
      return listing;
    },
    commit: async (conditions: readonly Condition[], writes: readonly Write[]) => {
      const committed = await coordinator.commit([{ key: mark.key, revision: mark.revision }, ...conditions], writes);
      if (!committed.done) {
        const { entries } = await coordinator.list(mark.key);
        judge(entries.find(({ key }) => key === mark.key));
      }
      return committed;
    },
  };
}
