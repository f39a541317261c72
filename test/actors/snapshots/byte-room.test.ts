import { expect, it } from "vitest";
import { createByteRoom } from "../../../actors/snapshots/byte-room.ts";

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

it("lets in who fits, one after another, and who is too large alone", async () => {
  const room = createByteRoom(10);
  const inside: string[] = [];
  const leave = new Map<string, () => void>();
  const enter = (name: string, bytes: number) =>
    room.with(bytes, async () => {
      inside.push(name);
      await new Promise<void>((resolve) => leave.set(name, resolve));
      inside.splice(inside.indexOf(name), 1);
      return name;
    });
  const all = [enter("a", 6), enter("b", 4), enter("large", 50), enter("c", 1)];
  await turn();
  expect(inside).toEqual(["a", "b"]);
  leave.get("a")?.();
  await turn();
  expect(inside).toEqual(["b"]);
  leave.get("b")?.();
  await turn();
  expect(inside).toEqual(["large"]);
  leave.get("large")?.();
  await turn();
  expect(inside).toEqual(["c"]);
  leave.get("c")?.();
  expect(await Promise.all(all)).toEqual(["a", "b", "large", "c"]);
});

it("is free again after a failure", async () => {
  const room = createByteRoom(1);
  const failing = room.with(1, () => Promise.reject(new Error("no")));
  const next = room.with(1, async () => "in");
  await expect(failing).rejects.toThrow("no");
  expect(await next).toBe("in");
});
