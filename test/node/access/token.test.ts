import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { covers, type Grant, parseGrant } from "../../../node/access/scope.ts";
import { createToken, findToken, hashOf, type KnownToken } from "../../../node/access/token.ts";
import { parseTokenEnd, writeTokenEntry } from "../../../node/access/token-entry.ts";
import { readTokensFile } from "../../../node/config/tokens-file.ts";
import { run } from "../cli/terminal.ts";

let folder = "";
const types = ["sensor", "site"];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "starling-tokens-"));
});

afterAll(() => rm(folder, { recursive: true }));

async function read(text: string) {
  const file = join(folder, "tokens.yml");
  await writeFile(file, text);
  return readTokensFile(file, types);
}

it("a token is 256 random bits, and found by its hash alone", () => {
  const tokens = Array.from({ length: 50 }, createToken);
  expect(new Set(tokens.map(({ token }) => token)).size).toBe(50);
  for (const { token } of tokens) expect(token).toMatch(/^starling_[\w-]{43}$/);
  const known = tokens.map(({ hash }, index): KnownToken => ({ name: `t${index}`, hash, grants: [], expiresAt: null }));
  expect(findToken(known, hashOf(tokens[7]?.token ?? ""))?.name).toBe("t7");
  expect(findToken(known, hashOf("starling_other"))).toBeNull();
});

it("an entry is read as it was written", async () => {
  const grants: Grant[] = [parseGrant("ingest:sensor"), parseGrant("read")];
  const token = { name: "a.b-c_1", hash: hashOf("x"), grants, expiresAt: Date.parse("2027-01-02T03:04:05Z") };
  const other = { name: "other", hash: hashOf("y"), grants, expiresAt: null };
  expect(await read(`${writeTokenEntry(token)}\n${writeTokenEntry(other)}\n`)).toEqual([token, other]);
});

it("a missing file is none, an empty one lets nobody in", async () => {
  expect(await readTokensFile(join(folder, "nowhere.yml"), types)).toBeNull();
  expect(await read("")).toEqual([]);
});

it("everything that is wrong in the file is told with its place, and no secret", async () => {
  const text = [
    "good: { hash: starling_secret, scopes: [ingest:sensr, write] }",
    "1st:",
    "  scopes: [read]",
    "  expires: soon",
    "  typ: x",
  ];
  const error = await read(text.join("\n")).catch(String);
  const lines = String(error).split("\n");
  expect(lines[0]).toContain("tokens.yml has 7 problem(s)");
  expect(String(error)).toMatch(/tokens\.yml:1: good\.hash: is not what `starling token new` printed/);
  expect(String(error)).toMatch(/tokens\.yml:1: good\.scopes: unknown entity type: did you mean .*sensor.*\?/);
  expect(String(error)).toMatch(
    /tokens\.yml:1: good\.scopes: is no scope \(found "write"; allowed ingest, read, control/,
  );
  expect(String(error)).toMatch(/tokens\.yml:2: 1st: is no name of a token/);
  expect(String(error)).toMatch(/tokens\.yml:4: 1st\.expires/);
  expect(String(error)).toMatch(/tokens\.yml:5: 1st\.typ: unknown key/);
  expect(String(error)).not.toContain("secret");
});

it("a grant covers its type, and a grant without a type all", () => {
  const [one, all] = [[parseGrant("read:sensor")], [parseGrant("read")]];
  const needs = [
    { kind: "known" },
    { kind: "some", scope: "read" },
    { kind: "type", scope: "read", type: "sensor" },
    { kind: "type", scope: "read", type: "site" },
    { kind: "all", scope: "read" },
    { kind: "some", scope: "ingest" },
  ] as const;
  expect(needs.map((need) => covers(one, need))).toEqual([true, true, true, false, false, false]);
  expect(needs.map((need) => covers(all, need))).toEqual([true, true, true, true, true, false]);
});

it("a token ends at a time, or after a while, and not before it begins", () => {
  const now = Date.parse("2026-01-01T00:00:00Z");
  expect(parseTokenEnd("2027-01-01", now)).toBe(Date.parse("2027-01-01T00:00:00Z"));
  expect(parseTokenEnd("90d", now)).toBe(now + 90 * 86_400_000);
  expect(() => parseTokenEnd("2025-01-01", now)).toThrow("over already");
  expect(() => parseTokenEnd("whenever", now)).toThrow();
});

it("`starling token new` shows a token once, and prints the entry that knows it", async () => {
  const ran = await run(["token", "new", "--name", "sensors", "--scope", "ingest:sensor", "--scope", "read"]);
  const token = /shown only now: (\S+)/.exec(ran.err)?.[1] ?? "";
  const entries = await read(ran.out);
  expect(findToken(entries ?? [], hashOf(token))).toMatchObject({
    name: "sensors",
    grants: [parseGrant("ingest:sensor"), parseGrant("read")],
    expiresAt: null,
  });
  expect(ran.out).not.toContain(token);
  const json = await run(["token", "new", "--name", "b", "--scope", "control", "--expires", "90d", "--json"]);
  const made = JSON.parse(json.out) as { token: string; hash: string; expires: string };
  expect(made.hash).toBe(`sha256:${hashOf(made.token).toString("hex")}`);
  expect(Date.parse(made.expires)).toBeGreaterThan(Date.now() + 89 * 86_400_000);
});

it("`starling token new` says what is wrong with its options", async () => {
  const wrong = async (...args: string[]) => run(["token", "new", ...args]);
  expect(await wrong("--name", "1", "--scope", "read")).toMatchObject({
    code: 2,
    err: expect.stringContaining("a letter"),
  });
  expect(await wrong("--name", "a", "--scope", "write")).toMatchObject({
    code: 2,
    err: expect.stringContaining("no scope"),
  });
  expect(await wrong("--name", "a")).toMatchObject({ code: 2, err: expect.stringContaining("--scope") });
  expect(await wrong("--name", "a", "--scope", "read", "--expires", "x")).toMatchObject({ code: 2 });
});
