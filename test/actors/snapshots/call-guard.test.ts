import { describe, expect, it } from "vitest";
import { createCallGuard } from "../../../actors/snapshots/call-guard.ts";

describe("a guarded call", () => {
  const guard = createCallGuard(200);
  const spin = (): never => {
    for (;;);
  };

  it("returns and throws what it does", async () => {
    const error = new TypeError("mine");
    expect(guard.run(() => 7)).toBe(7);
    expect(guard.run(() => undefined)).toBe(undefined);
    expect(() =>
      guard.run(() => {
        throw error;
      }),
    ).toThrow(error);
    expect(await guard.run(async () => 8)).toBe(8);
  });

  it("is ended when it does not yield, and all that waits goes on", async () => {
    const others: number[] = [];
    const before = Promise.resolve().then(() => void others.push(1));
    const stuck = Promise.resolve().then(() => guard.run(spin));
    const after = Promise.resolve().then(() => void others.push(2));
    await expect(stuck).rejects.toMatchObject({ code: "DEADLINE", message: "it did not yield for 200 ms" });
    await Promise.all([before, after]);
    expect(others).toEqual([1, 2]);
    expect(guard.run(() => 7)).toBe(7);
  });
});
