import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import { endWithinMs } from "../../../actors/ending.ts";
import { settingHelp, settingsSchema } from "../../../node/config/settings.ts";
import { judgeMachine, readMachine } from "../../../node/doctor/machine-findings.ts";
import { repository } from "../../support/repository.ts";

/* node/deploy/starling.service: what systemd says of it, and whether it agrees with the code. */

const unit = await readFile(join(repository, "node/deploy/starling.service"), "utf8");
const settings = new Map(
  unit.split("\n").flatMap((line) => {
    const [, key, value] = /^([A-Z]\w*)=(.*)$/.exec(line) ?? [];
    return key === undefined || value === undefined ? [] : [[key, value] as const];
  }),
);
const systemd = (process.env.PATH ?? "").split(delimiter).some((folder) => existsSync(join(folder, "systemd-analyze")));

/** Of systemd.unit(5), systemd.service(5), systemd.kill(5) and systemd.exec(5), as far as they stand here. */
const knownKeys = new Set(
  `Description After Wants StartLimitIntervalSec Type User Group Environment EnvironmentFile ExecStart ExecReload
   Restart RestartSec KillSignal KillMode TimeoutStopSec LimitNOFILE UMask StateDirectory StateDirectoryMode
   CapabilityBoundingSet LockPersonality NoNewPrivileges PrivateDevices PrivateTmp ProtectClock
   ProtectControlGroups ProtectHome ProtectHostname ProtectKernelLogs ProtectKernelModules ProtectKernelTunables
   ProtectSystem RestrictAddressFamilies RestrictNamespaces RestrictRealtime RestrictSUIDSGID
   SystemCallArchitectures WantedBy`.split(/\s+/),
);

function keysOf(text: string): string[] {
  return [...text.matchAll(/^([A-Z]\w*)=/gm)].map(([, key = ""]) => key);
}

describe("the systemd unit", () => {
  it("ends a node as it wants to be ended, and starts it again when it failed", () => {
    expect(settings.get("KillSignal")).toBe("SIGTERM");
    // The node stops its own PostgreSQL itself, after it has flushed.
    expect(settings.get("KillMode")).toBe("mixed");
    expect(Number(settings.get("TimeoutStopSec"))).toBeGreaterThanOrEqual(endWithinMs / 1000 + 10);
    expect(settings.get("Restart")).toBe("on-failure");
    expect(settings.get("StartLimitIntervalSec")).toBe("0");
  });

  it("lets it read its certificates again by the signal that it listens to", async () => {
    expect(settings.get("ExecReload")).toBe("/bin/kill -HUP $MAINPID");
    expect(await readFile(join(repository, "node/cli/main.ts"), "utf8")).toContain('process.on("SIGHUP"');
  });

  it("starts the command line as package.json does, on a folder of its own", async () => {
    const { bin, scripts } = JSON.parse(await readFile(join(repository, "package.json"), "utf8")) as {
      bin: { starling: string };
      scripts: { starling: string };
    };
    const [, flags = "", main = ""] =
      /^\S+ (.*) \/opt\/starling\/(\S+) node \/etc\/starling$/.exec(settings.get("ExecStart") ?? "") ?? [];
    expect(main).toBe(bin.starling);
    expect(`node ${flags} ${main}`).toBe(scripts.starling);
    expect(settings.get("Environment")).toContain(`STARLING_DATA_DIR=/var/lib/${settings.get("StateDirectory")}`);
    const known = settingHelp().map(({ variable }) => variable);
    expect(known).toEqual(expect.arrayContaining(unit.match(/STARLING_\w+/g) ?? []));
  });

  it("gives it few rights, and files enough", async () => {
    for (const key of ["NoNewPrivileges", "PrivateTmp", "ProtectHome", "RestrictNamespaces"]) {
      expect(settings.get(key), key).toBe("yes");
    }
    expect(settings.get("ProtectSystem")).toBe("strict");
    expect(settings.get("CapabilityBoundingSet")).toBe("");
    // V8 makes code while it runs.
    expect(settings.has("MemoryDenyWriteExecute")).toBe(false);
    const machine = { ...(await readMachine()), openFilesMax: Number(settings.get("LimitNOFILE")) };
    const files = judgeMachine(machine, settingsSchema.parse({})).find(({ check }) => check === "open files");
    expect(files?.status).toBe("ok");
  });

  it("holds settings that systemd knows: by what it says itself, where it is there", async () => {
    const folder = await mkdtemp(join(tmpdir(), "starling-unit-"));
    const verify = async (text: string): Promise<string> => {
      if (!systemd)
        return keysOf(text)
          .filter((key) => !knownKeys.has(key))
          .join("\n");
      const file = join(folder, "starling.service");
      await writeFile(file, text.replace("/usr/bin/node", process.execPath));
      const ran = await promisify(execFile)("systemd-analyze", ["verify", "--man=no", file], { timeout: 30_000 }).catch(
        (error: { stdout: string; stderr: string }) => error,
      );
      // Of other units, which this machine has, it may say something, too.
      return `${ran.stdout}${ran.stderr}`
        .split("\n")
        .filter((line) => line.includes("starling"))
        .join("\n");
    };
    try {
      expect(await verify(unit)).toBe("");
      expect(await verify(unit.replace("TimeoutStopSec", "TimeoutStopSecs"))).toContain("TimeoutStopSecs");
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });
});
