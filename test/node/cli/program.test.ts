import { describe, expect, it } from "vitest";
import { describeError } from "../../../node/cli/cli-error.ts";
import { type ErrorCode, errorCodes, StarlingError } from "../../../proto/starling-error.ts";
import { run } from "./terminal.ts";

const commands = [
  ["demo"],
  ["node"],
  ["check"],
  ["doctor"],
  ["status"],
  ["send"],
  ["entity", "get"],
  ["entity", "list"],
  ["entity", "count"],
  ["entity", "set"],
  ["entity", "delete"],
  ["raw"],
  ["dead-letter", "list"],
  ["dead-letter", "show"],
  ["dead-letter", "replay"],
  ["dead-letter", "discard"],
  ["modules"],
  ["cluster", "start"],
  ["cluster", "status"],
  ["cluster", "why"],
  ["cluster", "drain"],
  ["cluster", "undrain"],
  ["cluster", "move"],
  ["cluster", "weight"],
  ["cluster", "adopt"],
];

describe("help", () => {
  it("of every command goes to standard output, has an example, and ends with 0", async () => {
    for (const command of commands) {
      const { code, out, err } = await run([...command, "--help"]);
      expect({ command, code, err }).toEqual({ command, code: 0, err: "" });
      expect(out).toContain("Examples:");
      expect(out).toContain(`$ starling ${command.join(" ")}`);
    }
  });

  it("of the program names every command", async () => {
    const { code, out } = await run(["--help"]);
    expect(code).toBe(0);
    for (const [command] of commands) expect(out).toMatch(new RegExp(`^  ${command}`, "m"));
  });

  it("every list and status has --json", async () => {
    for (const command of commands.filter(([first]) => first !== "node" && first !== "demo")) {
      expect((await run([...command, "--help"])).out).toContain("--json");
    }
  });

  it("the version is that of the package", async () => {
    expect(await run(["--version"])).toMatchObject({ code: 0, out: expect.stringMatching(/^\d+\.\d+\.\d+\n$/) });
  });
});

describe("wrong usage ends with 2 and says where help is", () => {
  const wrong: readonly (readonly [readonly string[], RegExp])[] = [
    [["nonsense"], /unknown command 'nonsense'/],
    [["stauts"], /Did you mean status\?/],
    [["send"], /missing required argument 'file'/],
    [["send", "--batch", "0", "-"], /expected a whole number from 1 to 10000/],
    [["send", "--format", "xml", "-"], /Allowed choices are json, ndjson, csv/],
    [["send", "--type", "airport", "-"], /needs all of --type, --eid and --attr/],
    [["send", "--t1", "when", "-"], /need --type, --eid and --attr/],
    [["send", "--attr", "city", "-"], /expected name=COLUMN/],
    [["send", "--attr", "a=b", "--attr", "a=c", "-"], /a is mapped twice/],
    [["entity", "get", "route"], /missing required argument 'eid'/],
    [["entity", "list", "route", "--limit", "many"], /expected a whole number/],
    [["raw", "route"], /name the entity, or use --follow/],
    [["status", "--nope"], /unknown option '--nope'/],
    [["dead-letter", "list", "--status", "lost"], /Allowed choices are open/],
  ];
  for (const [args, message] of wrong) {
    it(`starling ${args.join(" ")}`, async () => {
      const { code, out, err } = await run(args);
      expect({ code, out }).toEqual({ code: 2, out: "" });
      expect(err).toMatch(/^starling: wrong usage: /);
      expect(err).toMatch(message);
      expect(err).toMatch(/→ see: starling .*--help/);
    });
  }
});

describe("an error", () => {
  it("goes to standard error with code, message and remedy, and ends with 1", async () => {
    const { code, out, err } = await run(["status", "--address", "not an address"]);
    expect({ code, out }).toEqual({ code: 1, out: "" });
    expect(err).toBe('starling: INVALID_ARGUMENT: "not an address" is not an address: expected host:port\n');
  });

  it("shows its stack only when STARLING_DEBUG is set", async () => {
    const args = ["status", "--address", "not an address"];
    expect((await run(args)).err).not.toContain("    at ");
    expect((await run(args, { env: { STARLING_DEBUG: "1" } })).err).toContain("    at ");
  });

  it("of any code can be told", () => {
    for (const code of Object.keys(errorCodes) as ErrorCode[]) {
      expect(describeError(new StarlingError(code, "text"))).toMatch(new RegExp(`^starling: ${code}: text`));
    }
  });

  it("about a file that is not there comes before anything is sent", async () => {
    const { code, err } = await run(["send", "/nowhere/at/all.json"]);
    expect(code).toBe(1);
    expect(err).toMatch(/^starling: NOT_FOUND: cannot read \/nowhere\/at\/all\.json: ENOENT/);
  });
});
