import { expect, test } from "vitest";
import { announceLeaving } from "../../actors/announce-state.ts";
import { StarlingError } from "../../proto/starling-error.ts";

const away = new StarlingError("UNAVAILABLE", "the state leaving could not be published yet");
const always = () => true;

/** A coordinator that fails so many times. */
function world(fails: number, problem = away) {
  const said: string[] = [];
  let asked = 0;
  return {
    said,
    asked: () => asked,
    log: { warn: (_: object, message: string) => void said.push(message) },
    membership: {
      announce: async () => {
        if (++asked <= fails) throw problem;
      },
    },
  };
}

test("a node that leaves waits for the coordinator, and says so once", async () => {
  const { membership, log, said, asked } = world(3);
  await announceLeaving(membership, always, log);
  expect(asked()).toBe(4);
  expect(said).toEqual(["serving on, waiting for etcd to hand the shards over"]);
});

test("a node that has nothing to hand over, or nobody to have it, does not wait", async () => {
  const { membership, log, said, asked } = world(3);
  let left = 2;
  await expect(announceLeaving(membership, () => --left > 0, log)).rejects.toBe(away);
  expect([asked(), said.length]).toEqual([2, 1]);
});

test("a node that leaves does not try for ever, and does not wait for what waiting does not mend", async () => {
  const { membership, log, asked } = world(Number.POSITIVE_INFINITY);
  await expect(announceLeaving(membership, always, log)).rejects.toBe(away);
  expect(asked()).toBeLessThan(20);
  const broken = world(1, new StarlingError("INTERNAL", "a bug"));
  await expect(announceLeaving(broken.membership, always, broken.log)).rejects.toMatchObject({ code: "INTERNAL" });
});
