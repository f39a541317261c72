import type { Values } from "./benchmark.ts";
import { type Surrounding, stages, surroundings } from "./stage.ts";

const header = ["stage", "alone, µs", "heap, bytes", "node, µs", "PostgreSQL, µs", "bytes"];

/** The costs of one datapoint as a Markdown table, a line each. */
export function stageTable(values: Values): string[] {
  const cell = (key: string): string => textOf(values[key]);
  const bytes: Readonly<Record<string, string>> = {
    decode: `${cell("wire_bytes")} wire`,
    append: `${cell("log_bytes")} log`,
    flush: `${cell("state_bytes")} state, ${cell("history_bytes")} history`,
  };
  const sumOf = (name: string): string => {
    return textOf(stages.reduce((sum, stage) => sum + (values[name.replace("*", stage)] ?? 0), 0));
  };
  const rows = [
    header,
    ...stages.map((stage) => [
      stage,
      cell(`alone_${stage}_us`),
      cell(`alone_${stage}_heap_bytes`),
      cell(`node_${stage}_us`),
      stage === "append" || stage === "flush" ? cell(`postgres_${stage}_us`) : "",
      bytes[stage] ?? "",
    ]),
    ["**stages**", sumOf("alone_*_us"), sumOf("alone_*_heap_bytes"), sumOf("node_*_us"), "", ""],
    ...Object.entries(surroundings).map(([key, name]) => [
      name,
      cell(`alone_${key as Surrounding}_us`),
      "",
      cell(`node_${key}_us`),
      key === "other" ? cell("postgres_other_us") : "",
      "",
    ]),
    ["**whole node**", cell("node_us"), "", cell("node_us"), cell("postgres_us"), ""],
  ];
  const widths = header.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  const lines = rows.map((row) => `| ${row.map((text, column) => text.padEnd(widths[column] ?? 0)).join(" | ")} |`);
  lines.splice(1, 0, `| ${widths.map((width) => "-".repeat(width)).join(" | ")} |`);
  return lines;
}

/** Two digits behind the point where it is small; nothing for what was not measured. */
function textOf(value: number | undefined): string {
  if (value === undefined) return "";
  if (Math.abs(value) >= 1000) return Math.round(value).toLocaleString("en");
  return Math.abs(value) >= 100 ? value.toFixed(0) : value.toFixed(Math.abs(value) >= 10 ? 1 : 2);
}
