import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Command } from "commander";
import type { HookState } from "../../proto/admin-client.ts";
import { withAddress } from "./address.ts";
import { type CommandContext, examples, withCalls } from "./command-context.ts";
import { nodeEnvironment } from "./node-options.ts";
import type { Output } from "./output.ts";

/** A hook of snapshots, as the command shows it. */
interface ShownHook extends Omit<HookState, "counters" | "target"> {
  readonly module: string;
  /** Empty: the hook is of no type. */
  readonly type: string;
  readonly attr: string;
}

/** `starling hooks [DIR]`: the hook graph of a configuration directory, or of a node. */
export function addHooksCommand(program: Command, context: CommandContext): void {
  const command = program
    .command("hooks")
    .summary("show in which order hooks run in a snapshot, what they read and may change")
    .description(
      "Shows the hooks of snapshot runs: by entity type in the order in which they run, with what each reads and may " +
        "change. With a configuration directory its modules are loaded and nothing is started; without one a node is asked.",
    )
    .argument("[dir]", "a configuration directory; left out: ask a node");
  withAddress(command)
    .option("--json", "the hooks as JSON, in the order in which they run")
    .addHelpText("after", examples("hooks examples/flights/config", "hooks --address 127.0.0.1:4700 --json"))
    .action(async (dir: string | undefined, options: { readonly address?: string; readonly json?: boolean }) => {
      if (dir !== undefined && options.address !== undefined) {
        command.error("give a directory or an address, not both", { exitCode: 2 });
      }
      const hooks = dir === undefined ? await hooksOfNode(context, options) : await hooksOfDirectory(context, dir);
      if (options.json === true) context.output.json({ hooks });
      else printHooks(context.output, hooks);
    });
}

function hooksOfNode(context: CommandContext, options: { readonly address?: string }): Promise<readonly ShownHook[]> {
  return withCalls(context, options, async ({ admin }) => shownHooks(await admin.modules()));
}

async function hooksOfDirectory(context: CommandContext, dir: string): Promise<readonly ShownHook[]> {
  // Loaded here, so that the other commands start without a node's packages.
  const { loadConfig } = await import("../config/load-config.ts");
  const { loadConfigured } = await import("./load-configured.ts");
  const { moduleStatuses } = await import("../module-status.ts");
  const { createCounters } = await import("../../actors/counters.ts");
  const config = await loadConfig(dir, { env: nodeEnvironment(context.env), flags: {} });
  const { modulesDir, enabledModules: enabled, model } = config;
  if (modulesDir === null || enabled.length === 0) return [];
  const cacheDir = await mkdtemp(join(tmpdir(), "starling-hooks-"));
  try {
    const modules = await loadConfigured(config, { modulesDir, enabled, cacheDir });
    return shownHooks(moduleStatuses(modules, model, createCounters()));
  } finally {
    await rm(cacheDir, { recursive: true, force: true });
  }
}

/** Of all hooks those that run in snapshots, in their order. */
function shownHooks(
  modules: readonly { readonly name: string; readonly hooks: readonly HookState[] }[],
): readonly ShownHook[] {
  return modules
    .flatMap(({ name: module, hooks }) => hooks.map((hook) => shownHook(module, hook)))
    .filter(({ kind, order }) => order > 0 || kind in stages)
    .sort((a, b) => stageOf(a.kind) - stageOf(b.kind) || a.order - b.order);
}

function shownHook(module: string, { counters: _, target, ...hook }: HookState): ShownHook {
  const [type = "", attr = ""] = target.split(".");
  return { module, type, attr, ...hook };
}

/** When a hook runs; those that the graph orders come after timeseries hooks. */
const stages: Readonly<Record<string, number>> = { snapshot_init: 0, timeseries: 1, snapshot_finalize: 3 };
const graphStage = 2;

function stageOf(kind: string): number {
  return stages[kind] ?? graphStage;
}

function printHooks(output: Output, hooks: readonly ShownHook[]): void {
  if (hooks.length === 0) output.print("no module registers a hook of snapshots");
  for (const [index, type] of [...new Set(hooks.map((hook) => hook.type))].entries()) {
    if (index > 0) output.print();
    output.print(output.paint("bold", type === "" ? "every node" : type));
    const rows = hooks
      .filter((hook) => hook.type === type)
      .map(({ order, module, kind, name, attr, dependsOn, mayChange, pure }) => [
        order === 0 ? "-" : String(order),
        `${module}.${name}`,
        kind,
        listOf([...(stages[kind] === stages.timeseries ? [attr] : []), ...dependsOn]),
        listOf(mayChange),
        runsWhen(kind, pure),
      ]);
    output.table(["order", "hook", "kind", "reads", "may change", "runs"], rows);
  }
}

function listOf(paths: readonly string[]): string {
  return paths.length === 0 ? "-" : paths.join(", ");
}

function runsWhen(kind: string, pure: boolean): string {
  if (kind === "snapshot_init" || kind === "snapshot_finalize") return "once";
  if (kind.startsWith("on_")) return "after a reload";
  return pure ? "on change" : "always";
}
