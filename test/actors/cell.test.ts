import { afterAll, expect, test } from "vitest";
import { startCellSystem } from "../../actors/cell.ts";

const cells = startCellSystem();
afterAll(() => cells.close());

test("a full mailbox refuses what others tell, and takes what became of the cell's own work", async () => {
  const handled: string[] = [];
  const handle = (message: string): void => void handled.push(message);
  const cell = cells.spawn<string>({
    name: "full",
    mailboxMax: 2,
    handle,
    onCrash: (error) => expect(error).toBeNull(),
  });
  expect([cell.tell("one"), cell.tell("two"), cell.tell("three")]).toEqual([true, true, false]);
  cell.report("outcome");
  expect(cell.waiting).toBe(3);
  await expect.poll(() => handled).toEqual(["one", "two", "outcome"]);
  await cell.stop();
  cell.report("late");
  expect([cell.tell("late"), cell.waiting]).toEqual([false, 0]);
});
