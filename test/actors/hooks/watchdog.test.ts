import { spawn } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

let folder = "";

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "starling-watchdog-"));
  await build({
    stdin: {
      contents: `export { startWatchdog } from "./actors/hooks/watchdog.ts"; export { systemClock } from "./proto/clock.ts";`,
      resolveDir: fileURLToPath(new URL("../../..", import.meta.url)),
    },
    bundle: true,
    platform: "node",
    format: "esm",
    outfile: join(folder, "watchdog.mjs"),
  });
});

afterAll(() => rm(folder, { recursive: true }));

/** Runs a script with a watchdog of 300 ms and gives its end. */
async function runWatched(name: string, script: string, atStart: (pid: number) => void = () => {}) {
  const file = join(folder, `${name}.mjs`);
  const known = 'know(["flights/on_new_attr/route.delay/spin"]);';
  const start = `const { mark, know, onCode, close } = startWatchdog({ loopMaxMs: 300, clock: systemClock }); ${known}`;
  await writeFile(file, `import { startWatchdog, systemClock } from "./watchdog.mjs";\n${start}\n${script}`);
  const child = spawn(process.execPath, [file], { stdio: ["ignore", "pipe", "pipe"] });
  const text = { stdout: "", stderr: "" };
  child.stdout.on("data", (chunk) => {
    if (text.stdout === "") atStart(child.pid ?? 0);
    text.stdout += chunk;
  });
  child.stderr.on("data", (chunk) => {
    text.stderr += chunk;
  });
  const code = await new Promise((resolve) => child.on("close", (code, signal) => resolve(code ?? signal)));
  return { code, ...text };
}

describe("watchdog", () => {
  it("ends a process whose hook never yields, naming module, hook, shard, seq and place", async () => {
    const script = "setTimeout(function spin() { mark.enter(0, 7, 42); for (;;) {} }, 20);";
    const { code, stderr } = await runWatched("spin", script);
    expect(code).toBe(70);
    expect(stderr).toContain(
      "starling: the event loop did not yield for 300 ms: the process ends with code 70; module flights, " +
        "hook flights/on_new_attr/route.delay/spin, shard 7, seq 42; at spin file:///",
    );
    expect(stderr).toMatch(/spin\.mjs:3/);
  });

  it("names the asynchronous runs in flight when one of them never yields after its first await", async () => {
    const script = "mark.release(mark.hold(0, 1, 1)); mark.hold(0, 7, 42); setTimeout(() => { for (;;) {} }, 20);";
    const { code, stderr } = await runWatched("await", script);
    expect(code).toBe(70);
    expect(stderr).toContain(
      "asynchronous runs in flight: module flights, hook flights/on_new_attr/route.delay/spin, shard 7, seq 42;",
    );
    expect(stderr).not.toContain("seq 1,");
  });

  it("names code that is no hook, told in the same turn that never ends, and no longer once it has ended", async () => {
    const start = "onCode('module flights, file flights.ts, where: load');";
    const { code, stderr } = await runWatched("load", `${start} for (;;) {}`);
    expect([code, stderr]).toEqual([
      70,
      expect.stringContaining("; module flights, file flights.ts, where: load; at "),
    ]);
    const after = await runWatched("loaded", `${start} onCode(null); for (;;) {}`);
    expect([after.code, after.stderr]).toEqual([70, expect.stringContaining("; no hook was running; at ")]);
  });

  it("lets a process be that works in turns, and holds none open", async () => {
    const script = `
      const until = Date.now() + 900;
      const turn = () => { mark.enter(0, 7, 42); const t = Date.now() + 60; while (Date.now() < t); mark.leave();
        if (Date.now() < until) setTimeout(turn, 5); else void close(); };
      turn();`;
    expect(await runWatched("turns", script)).toMatchObject({ code: 0, stderr: "" });
  });

  it("does not end a process that was frozen and goes on", async () => {
    const script = "console.log('up'); setTimeout(() => { void close(); }, 1200);";
    const outcome = await runWatched("frozen", script, (pid) => {
      process.kill(pid, "SIGSTOP");
      setTimeout(() => process.kill(pid, "SIGCONT"), 900);
    });
    expect(outcome).toMatchObject({ code: 0, stderr: "" });
  });
});
