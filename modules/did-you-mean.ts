import { nearestName } from "./nearest-name.ts";

const shownMax = 12;

/** The end of an error message about an unknown name: `: did you mean 'x'?` when one is near, else what there is. */
export function didYouMean(word: string, known: Iterable<string>): string {
  const names = [...known];
  if (names.length === 0) return ": there are none";
  const nearest = nearestName(word, names);
  if (nearest !== null) return `: did you mean '${nearest}'?`;
  const shown = names.slice(0, shownMax).join(", ");
  return `; there is ${shown}${names.length > shownMax ? ` and ${names.length - shownMax} more` : ""}`;
}
