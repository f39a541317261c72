import type { Command } from "commander";
import type { CommandContext } from "./command-context.ts";
import { addHistory } from "./snapshot-history-command.ts";
import { addCount, addDistinct, addList } from "./snapshot-read-commands.ts";
import { addCancel, addRun, addRuns } from "./snapshot-run-commands.ts";

/** `starling snapshot …`: entities at an instant, and the runs that compute them. */
export function addSnapshotCommand(program: Command, context: CommandContext): void {
  const snapshot = program.command("snapshot").summary("read snapshots of entities, and run them");
  snapshot.description(
    "Snapshots: the current values of all entities at one instant, fused by modules. What is read is of the newest finished " +
      "run, or of one before: --tick, --at.",
  );
  addRun(snapshot, context);
  addRuns(snapshot, context);
  addCancel(snapshot, context);
  addList(snapshot, context);
  addCount(snapshot, context);
  addDistinct(snapshot, context);
  addHistory(snapshot, context);
}
