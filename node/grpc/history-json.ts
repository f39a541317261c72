import type { HistorySegment } from "../../actors/store/store.ts";

/**
 * Stored history as JSON text, `{attr: [{"t1","t2","v","c"}]}`, newest first, at most `limit` entries an attribute.
 * Segments are newest first; their lines are oldest first.
 */
export function historyJson(segments: readonly HistorySegment[], limit: number): string {
  const byAttr = new Map<string, string[]>();
  for (const segment of segments) {
    for (const line of segment.body.split("\n").reverse()) {
      if (line === "") continue;
      const [attr = "", , t1 = "", t2 = "", c = "", json = "null"] = line.split("\t");
      const entries = byAttr.get(attr) ?? [];
      byAttr.set(attr, entries);
      if (entries.length < limit)
        entries.push(`{"t1":${t1 || "null"},"t2":${t2 || "null"},"v":${json},"c":${c || "1"}}`);
    }
  }
  const members = [...byAttr].map(([attr, entries]) => `${JSON.stringify(attr)}:[${entries.join(",")}]`);
  return `{${members.join(",")}}`;
}
