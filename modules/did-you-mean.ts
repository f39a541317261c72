/**
 * The end of an error message about an unknown name: `: did you mean 'x'?` when one is near, else what there is.
 * Nearness is the Levenshtein distance, at most a third of the word.
 */
export function didYouMean(word: string, known: Iterable<string>): string {
  const names = [...known];
  if (names.length === 0) return ": there are none";
  let nearest = "";
  let least = Math.max(1, Math.floor(word.length / 3)) + 1;
  for (const name of names) {
    const distance = editDistance(word.toLowerCase(), name.toLowerCase(), least);
    if (distance < least) {
      least = distance;
      nearest = name;
    }
  }
  if (nearest !== "") return `: did you mean '${nearest}'?`;
  const shown = names.slice(0, 12).join(", ");
  return `; there is ${shown}${names.length > 12 ? ` and ${names.length - 12} more` : ""}`;
}

/** Insertions, deletions and replacements between two words; stops counting at `limit`. */
function editDistance(a: string, b: string, limit: number): number {
  if (Math.abs(a.length - b.length) >= limit) return limit;
  let previous = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const replace = (previous[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      row.push(Math.min(replace, (previous[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1));
    }
    previous = row;
  }
  return previous[b.length] ?? limit;
}
