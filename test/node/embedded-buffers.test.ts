import { expect, test } from "vitest";
import { embeddedBuffers } from "../../node/embedded-postgres.ts";

const gib = 1024 ** 3;

test("the embedded server takes a sixteenth of the machine's memory for its tables, from 128 MiB to 1 GiB", () => {
  expect([gib, 8 * gib, 15.5 * gib, 256 * gib].map(embeddedBuffers)).toEqual(["128MB", "512MB", "992MB", "1024MB"]);
});
