import { expect, test } from "vitest";
import { stateFormOf } from "../../actors/state-form.ts";

test("records are written short when all nodes that may own them can read that, and not before", () => {
  const [before, now] = [{ protocolMax: 1 }, { protocolMax: 2 }];
  expect(stateFormOf([now, now])).toBe("short");
  expect(stateFormOf([now, { protocolMax: 3 }])).toBe("short");
  expect(stateFormOf([now, before])).toBe("long");
  expect(stateFormOf([before])).toBe("long");
  expect(stateFormOf([])).toBe("long"); // nobody is known yet
});
