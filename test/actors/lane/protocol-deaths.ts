import { createHash } from "node:crypto";

/** A script that nodes play one after another, each from where the one before died. */
export interface DeathScript<World, Result> {
  /** All that outlives a node: the store, what its clients know, how far the script is. */
  begin(): World;
  copy(world: World): World;
  /** The world as text: from two that read alike the next node goes the same way, for it is deterministic. */
  write(world: World): string;
  /** Plays to the end; after each effect `onEffect` is told, and the world is what a death there would leave. */
  live(world: World, life: number, onEffect: () => void): Promise<Result>;
}

export interface Played {
  /** Places at which a node died: every effect of every life that was looked at. */
  readonly deaths: number;
  /** Lives that were played from them: of all deaths that leave the same world the first one stands for the others. */
  readonly lives: number;
}

/**
 * Lets a node die after every single effect, its successor after every effect of its own, and so on for `nested` deaths.
 * What the last node of each line leaves goes to `check`, with the effects that the nodes before it were granted. No life
 * is played twice for its beginning: a death is a copy of the world in the middle of a life that goes on.
 */
export async function playDeaths<World, Result>(
  script: DeathScript<World, Result>,
  nested: number,
  check: (result: Result, deaths: readonly number[]) => void,
): Promise<Played> {
  const known = new Set<string>();
  let deaths = 0;
  let lives = 0;
  let open: { readonly world: World; readonly after: readonly number[] }[] = [{ world: script.begin(), after: [] }];
  // By the number of deaths: of worlds that are alike, that with the fewest goes on, and so dies as often as any other.
  while (open.length > 0) {
    const next: typeof open = [];
    for (const { world, after } of open) {
      let effects = 0;
      const result = await script.live(world, after.length, () => {
        effects++;
        if (after.length === nested) return;
        deaths++;
        const text = createHash("sha1").update(script.write(world)).digest("base64");
        if (known.has(text)) return;
        known.add(text);
        next.push({ world: script.copy(world), after: [...after, effects] });
      });
      lives++;
      check(result, after);
    }
    open = next;
  }
  return { deaths, lives };
}
