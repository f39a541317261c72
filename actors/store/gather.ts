import { toStarlingError } from "../../proto/starling-error.ts";

/**
 * Calls that go together. Those that come while others are on their way wait, and make up the next group: so a caller alone
 * waits for nobody, and many share a statement. Its callers bound how many wait.
 */
export interface GatherOptions<Item, Result> {
  /** Answers in the order of the items. Must allow what it was given to be given to it again. */
  run(items: readonly Item[]): Promise<readonly Result[]>;
  /** Groups on their way at once. */
  readonly groupsMax: number;
  /** Only calls of one key go together. */
  keyOf(item: Item): string;
  weightOf(item: Item): number;
  /** Of a group; an item above that goes alone. */
  readonly weightMax: number;
}

interface Waiting<Item, Result> {
  readonly item: Item;
  readonly resolve: (result: Result) => void;
  readonly reject: (error: unknown) => void;
}

/** One call, which may go with others. Raises what `run` raises; of bad data (STORE_REFUSED), only the call that brings them. */
export function createGather<Item, Result>(options: GatherOptions<Item, Result>): (item: Item) => Promise<Result> {
  const { run, keyOf, weightOf } = options;
  let waiting: Waiting<Item, Result>[] = [];
  let under = 0;

  const take = (): Waiting<Item, Result>[] => {
    const [first] = waiting;
    if (first === undefined) return [];
    const key = keyOf(first.item);
    let weight = 0;
    const group: Waiting<Item, Result>[] = [];
    const rest: Waiting<Item, Result>[] = [];
    for (const call of waiting) {
      const heavier = weight + weightOf(call.item);
      if (keyOf(call.item) !== key || (group.length > 0 && heavier > options.weightMax)) rest.push(call);
      else {
        group.push(call);
        weight = heavier;
      }
    }
    waiting = rest;
    return group;
  };

  const answer = async (group: readonly Waiting<Item, Result>[]): Promise<void> => {
    try {
      const results = await run(group.map(({ item }) => item));
      for (const [index, { resolve }] of group.entries()) resolve(results[index] as Result);
    } catch (error) {
      if (group.length === 1 || toStarlingError(error).code !== "STORE_REFUSED") {
        for (const { reject } of group) reject(error);
      } else for (const call of group) await answer([call]);
    }
  };

  const begin = (): void => {
    while (under < options.groupsMax) {
      const group = take();
      if (group.length === 0) return;
      under++;
      void answer(group).finally(() => {
        under--;
        begin();
      });
    }
  };

  return (item) =>
    new Promise<Result>((resolve, reject) => {
      waiting.push({ item, resolve, reject });
      // What is asked for in one turn goes together, too.
      if (waiting.length === 1) queueMicrotask(begin);
    });
}
