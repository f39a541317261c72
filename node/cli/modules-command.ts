import type { Command } from "commander";
import type { ModuleState } from "../../proto/admin-client.ts";
import { type AddressOptions, withAddress } from "./address.ts";
import { type CommandContext, examples, withCalls } from "./command-context.ts";
import { formatCount, type Output } from "./output.ts";

/** `starling modules`: the modules of a node, their hooks and what these have done. */
export function addModulesCommand(program: Command, context: CommandContext): void {
  const command = program
    .command("modules")
    .summary("show modules, their hooks and their counters")
    .description(
      "Shows the modules of a node, the hooks that they registered, and what these have done since the start.",
    );
  withAddress(command)
    .option("--json", "modules as JSON")
    .addHelpText("after", examples("modules", "modules --json"))
    .action((options: AddressOptions & { readonly json?: boolean }) =>
      withCalls(context, options, async ({ admin }) => {
        const modules = await admin.modules();
        if (options.json === true) context.output.json({ modules });
        else printModules(context.output, modules);
      }),
    );
}

function printModules(output: Output, modules: readonly ModuleState[]): void {
  if (modules.length === 0) output.print("no module is enabled");
  for (const [index, { name, file, hooks }] of modules.entries()) {
    if (index > 0) output.print();
    output.print(`${output.paint("bold", name)}  ${output.paint("dim", file)}`);
    const rows = hooks.map(({ kind, target, name: hook, counters }) => {
      const count = (counter: string) => formatCount(counters[counter] ?? 0);
      const executions = counters.executions ?? 0;
      const meanUs = executions > 0 ? (counters.duration_ns ?? 0) / executions / 1000 : 0;
      const refused = kind === "allow_entity_creation" ? count("decisions_denied") : "-";
      return [
        kind,
        target,
        hook,
        count("executions"),
        count("failures"),
        count("created_tasks"),
        refused,
        meanUs.toFixed(1),
      ];
    });
    output.table(["hook", "of", "name", "runs", "failures", "derived", "refused", "mean µs"], rows);
  }
}
