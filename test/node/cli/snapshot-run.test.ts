import { expect, test } from "vitest";
import { progressText } from "../../../node/cli/snapshot-run-commands.ts";
import type { RunStatus } from "../../../proto/snapshots-client.ts";
import { run } from "./terminal.ts";

const status: RunStatus = {
  ...{
    tick: 7,
    at: 0,
    kind: "changed",
    cause: "demand",
    status: "running",
    phase: "visit",
    startedAt: 0,
    endedAt: null,
  },
  ...{ counts: {}, hooks: {}, error: "" },
};

test("progress tells the phase and what is done, as far as it is known", () => {
  expect(progressText(status, 850)).toBe("run 7: visit, 0 entities, 850 ms");
  const counts = { entities: 12_345, kept: 1_000, components: 3, shards: 256, shardsDone: 12 };
  expect(progressText({ ...status, phase: "components", counts }, 12_000)).toBe(
    "run 7: components, 12,345 entities, 1,000 unchanged, 3 components, 12 of 256 shards, 12 s",
  );
});

test("every command of snapshots helps with examples", async () => {
  for (const name of ["run", "runs", "cancel", "list", "count", "distinct", "history"]) {
    const { code, out } = await run(["snapshot", name, "--help"]);
    expect({ name, code }).toEqual({ name, code: 0 });
    expect(out).toContain(`Examples:\n  $ starling snapshot ${name}`);
    expect(out).toContain("--json");
  }
});
