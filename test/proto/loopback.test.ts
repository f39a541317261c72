import { expect, it } from "vitest";
import { hostOf, isLoopback } from "../../proto/loopback.ts";

it("loopback is what cannot be anywhere else", () => {
  const near = ["127.0.0.1:4700", "127.8.9.1:1", "localhost:4700", "[::1]:4700", "::1", "[::ffff:127.0.0.1]:1"];
  const far = ["0.0.0.0:4700", "[::]:4700", "10.0.0.1:4700", "node-a:4700", "127.0.0.1.evil.org:1", "localhost.evil:1"];
  expect(near.filter((address) => !isLoopback(address))).toEqual([]);
  expect(far.filter(isLoopback)).toEqual([]);
});

it("a host is what stands before the port, without brackets", () => {
  expect(["a.b:1", "[::1]:5", "::1", "10.0.0.1"].map(hostOf)).toEqual(["a.b", "::1", "::1", "10.0.0.1"]);
});
