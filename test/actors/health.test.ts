import { expect, test } from "vitest";
import { createHealth } from "../../actors/health.ts";
import { StarlingError } from "../../proto/starling-error.ts";

const away = new StarlingError("STORE", "the disk is full");
const refused = new StarlingError("STORE_REFUSED", "no such table");

function open() {
  const said: string[] = [];
  const heard: (string | null)[] = [];
  const say = (_: object, message: string): void => void said.push(message);
  const health = createHealth({ info: say, warn: say });
  health.on((problem) => heard.push(problem?.code ?? null));
  return { health, said, heard };
}

test("what goes well says nothing about other work", () => {
  const { health, said, heard } = open();
  health.report("appends of lane 0", away);
  health.report("loads of lane 0", null);
  health.report("appends of lane 1", away);
  health.report("appends of lane 0", null);
  expect([said, heard]).toEqual([["not serving"], [null, "STORE"]]);
  health.report("appends of lane 1", null);
  health.report("appends of lane 1", null);
  expect(said).toEqual(["not serving", "serving again"]);
  expect(health.problem()).toBeNull();
});

test("what no retry mends is said beside what one may, and until it is mended", () => {
  const { health, heard } = open();
  health.report("flushes of lane 0", away);
  health.report("flushes of lane 1", refused);
  health.report("flushes of lane 0", null);
  health.report("flushes of lane 1", refused);
  health.report("flushes of lane 1", null);
  expect(heard).toEqual([null, "STORE", "STORE_REFUSED", null]);
});
