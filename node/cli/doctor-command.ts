import type { Command } from "commander";
import { systemClock } from "../../proto/clock.ts";
import type { Diagnosis } from "../doctor/diagnosis.ts";
import type { Finding } from "../doctor/finding.ts";
import { parseAddresses, reachOf } from "./address.ts";
import { type CommandContext, examples } from "./command-context.ts";
import { type NodeFlags, nodeEnvironment, withNodeFlags } from "./node-options.ts";
import { type Colour, shorten } from "./output.ts";
import { formatDuration } from "./progress.ts";

interface DoctorOptions extends NodeFlags {
  readonly address?: string;
}

/** `starling doctor [DIR]`: what is wrong with all that a node needs, and what to do. */
export function addDoctorCommand(program: Command, context: CommandContext): void {
  const command = program
    .command("doctor")
    .summary("say what is wrong with all that a node needs, and what to do")
    .description(
      "Looks at the configuration, this machine, PostgreSQL, etcd and the node, changes nothing, and answers within three " +
        "seconds, also when these do not. With --address and no directory it asks only these nodes. Ends with 1 when there is " +
        "a problem; warnings are for later.",
    )
    .argument("[dir]", "the configuration directory (default: variables, flags and defaults)")
    .option(
      "-a, --address <host:port>",
      "the node to ask, or several with commas (default: the one that listens where the configuration says)",
    )
    .option("--json", "the findings as JSON");
  withNodeFlags(command)
    .addHelpText("after", examples("doctor /etc/starling", "doctor -a 10.0.0.5:4700", "doctor /etc/starling --json"))
    .action((dir: string | undefined, options: DoctorOptions & { readonly json?: boolean }) =>
      runDoctor(context, dir ?? null, options),
    );
}

async function runDoctor(
  context: CommandContext,
  dir: string | null,
  { json, address, ...flags }: DoctorOptions & { readonly json?: boolean },
): Promise<void> {
  // Loaded here, so that the other commands start without a node's packages.
  const { diagnose } = await import("../doctor/diagnosis.ts");
  const { output, env } = context;
  const { tlsCa, tlsCert, tlsKey } = flags as NodeFlags;
  // They are settings, too; the rest of a node's flags says nothing of how it is reached.
  const tlsFlags = { ...(tlsCa && { tlsCa }), ...(tlsCert && { tlsCert }), ...(tlsKey && { tlsKey }) };
  const diagnosis = await diagnose({
    dir,
    addresses: address === undefined ? [] : parseAddresses(address, env),
    reach: reachOf(tlsFlags, env),
    ...{ env: nodeEnvironment(env), flags: flags as NodeFlags, clock: systemClock, wall: Date.now },
  });
  const counts = countOf(diagnosis);
  if (json === true) output.json({ ok: counts.problem === 0, counts, ...diagnosis });
  else printDiagnosis(context, diagnosis, counts);
  if (counts.problem > 0) context.fail();
}

type Counts = Readonly<Record<Finding["status"], number>>;

function countOf({ findings }: Diagnosis): Counts {
  const count = (status: Finding["status"]) => findings.filter((finding) => finding.status === status).length;
  return { ok: count("ok"), warning: count("warning"), problem: count("problem") };
}

const colours: Readonly<Record<Finding["status"], Colour>> = { ok: "green", warning: "yellow", problem: "red" };

function printDiagnosis({ output }: CommandContext, { findings, tookMs }: Diagnosis, counts: Counts): void {
  const checkWidth = Math.max(0, ...findings.map(({ check }) => check.length));
  const line = (text: string) => shorten(text, 1_000);
  let place = "";
  for (const finding of findings) {
    if (finding.place !== place) output.print(output.paint("bold", line(finding.place)));
    place = finding.place;
    const { status, check, found, expected, remedy } = finding;
    const mark = output.paint(colours[status], status.padEnd("problem".length));
    output.print(`  ${mark}  ${check.padEnd(checkWidth)}  ${line(found)}`);
    const indent = " ".repeat("problem".length + checkWidth + 6);
    if (expected !== "") output.print(`${indent}expected: ${line(expected)}`);
    if (remedy !== "") output.print(`${indent}→ ${line(remedy)}`);
  }
  output.print();
  const { ok, warning, problem } = counts;
  output.print(`${problem} problems, ${warning} warnings, ${ok} good; looked for ${formatDuration(tookMs)}`);
}
