import { Command, CommanderError } from "commander";
import { version } from "../version.ts";
import { addActorCommand } from "./actor-command.ts";
import { addCheckCommand } from "./check-command.ts";
import { reportError } from "./cli-error.ts";
import { addClusterCommand } from "./cluster-command.ts";
import { type CommandAdder, type CommandContext, examples } from "./command-context.ts";
import { addDeadLetterCommand } from "./dead-letter-command.ts";
import { addDemoCommand } from "./demo-command.ts";
import { addDoctorCommand } from "./doctor-command.ts";
import { addEntityCommand } from "./entity-command.ts";
import { addHooksCommand } from "./hooks-command.ts";
import { addModulesCommand } from "./modules-command.ts";
import { addNodeCommand } from "./node-command.ts";
import { addRawCommand } from "./raw-command.ts";
import { addSendCommand } from "./send-command.ts";
import { addSnapshotCommand } from "./snapshot-command.ts";
import { addStatusCommand } from "./status-command.ts";
import { addTokenCommand } from "./token-command.ts";

const adders: readonly CommandAdder[] = [
  addDemoCommand,
  addNodeCommand,
  addCheckCommand,
  addDoctorCommand,
  addStatusCommand,
  addSendCommand,
  addEntityCommand,
  addRawCommand,
  addSnapshotCommand,
  addClusterCommand,
  addDeadLetterCommand,
  addActorCommand,
  addModulesCommand,
  addHooksCommand,
  addTokenCommand,
];

/** The exit codes of the command line. */
export type ExitCode = 0 | 1 | 2;

/** All commands, over the given world. */
export function createProgram(context: CommandContext): Command {
  const program = new Command("starling")
    .description(
      "Starling keeps live profiles of entities: datapoints in over gRPC, entities as actors, durable records.",
    )
    .version(version)
    .addHelpText("after", examples("demo", "node examples/flights/config", "send datapoints.json", "entity count"))
    .addHelpText(
      "after",
      "\nExit codes: 0 done, 1 failed, 2 wrong usage. STARLING_DEBUG=1 shows where an error arose.\n",
    );
  for (const add of adders) add(program, context);
  configure(program, context);
  return program;
}

/** Runs one command line, without the program's name. */
export async function runCommandLine(args: readonly string[], world: Omit<CommandContext, "fail">): Promise<ExitCode> {
  let code: ExitCode = 0;
  const context: CommandContext = {
    ...world,
    fail: () => {
      code = 1;
    },
  };
  try {
    await createProgram(context).parseAsync(args, { from: "user" });
    return code;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    reportError(error, context);
    return 1;
  }
}

/** Usage errors and help go where the other output goes, and end nothing by themselves. */
function configure(command: Command, context: CommandContext): void {
  const write = (line: (text: string) => void) => (text: string) => line(text.replace(/\n$/, ""));
  command.exitOverride();
  command.configureOutput({
    writeOut: write(context.output.print),
    writeErr: write(context.output.note),
    outputError: (text) => context.output.note(`starling: ${text.trim().replace(/^error: /, "wrong usage: ")}`),
  });
  command.showHelpAfterError(`  → see: starling ${pathOf(command)}--help`);
  for (const child of command.commands) configure(child, context);
}

function pathOf(command: Command): string {
  const names: string[] = [];
  for (let at: Command | null = command; at?.parent; at = at.parent) names.unshift(at.name());
  return names.length === 0 ? "" : `${names.join(" ")} `;
}
