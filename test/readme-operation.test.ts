import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import { repository } from "./support/repository.ts";

const readme = await readFile(join(repository, "README.md"), "utf8");
const section = /^### When something fails\n([\s\S]*?)^#/m.exec(readme)?.[1] ?? "";
const symptoms = [...section.matchAll(/^\| `([^`]+)`/gm)].map(([, text = ""]) => text);

it("the words by which the README knows a failure are the code's", async () => {
  const files = await Promise.all(
    ["proto", "cluster", "modules", "actors", "node"].map(async (part) => {
      const names = await readdir(join(repository, part), { recursive: true });
      const sources = names.filter((name) => name.endsWith(".ts") && !name.startsWith("gen"));
      return Promise.all(sources.map((name) => readFile(join(repository, part, name), "utf8")));
    }),
  );
  // Comments do not count: a symptom is what a person reads.
  const code = files
    .flat()
    .join("\n")
    .replace(/\/\*[\s\S]*?\*\//g, "")
    .replace(/^\s*\/\/.*$/gm, "");
  expect(symptoms.length).toBeGreaterThan(15);
  expect(symptoms.filter((text) => !code.includes(text))).toEqual([]);
});

it("and each has a meaning and a remedy", () => {
  const rows = section.split("\n").filter((line) => line.startsWith("| `"));
  for (const row of rows) {
    const [, meaning = "", remedy = ""] = row
      .split("|")
      .slice(1, -1)
      .map((cell) => cell.trim());
    expect([meaning.length > 5, remedy.length > 5], row).toEqual([true, true]);
  }
});

it("files that it names are there", async () => {
  const names = [...readme.matchAll(/\]\((node\/[^)#]+)\)/g)].map(([, name = ""]) => name);
  expect(names.length).toBeGreaterThan(2);
  for (const name of names) expect((await readFile(join(repository, name))).length).toBeGreaterThan(0);
});
