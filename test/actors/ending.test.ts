import { describe, expect, test } from "vitest";
import { createEnding } from "../../actors/ending.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import { createManualClock } from "../support/manual-clock.ts";

const withinMs = 45_000;
const fine = () => Promise.resolve();
const refused = () => Promise.reject(new StarlingError("STORE", "refused"));
const never = () => new Promise<void>(() => {});

function createWorld(...pings: (() => Promise<void>)[]) {
  const clock = createManualClock();
  const givenUp: number[] = [];
  const asked = pings.map(() => 0);
  const counted = pings.map((ping, at) => () => {
    asked[at] = (asked[at] ?? 0) + 1;
    return ping();
  });
  const ending = createEnding({ clock, withinMs, pings: counted, onGivenUp: (database) => givenUp.push(database) });
  /** What came of waiting for work that never ends, and when. */
  const waitFor = (wait: { database?: number; withinMs?: number } = {}) => {
    const told: { code: string | null; at: number } = { code: null, at: 0 };
    ending.wait(never(), { text: "it did not end", ...wait }).catch((error: StarlingError) => {
      Object.assign(told, { code: error.code, at: clock.now() });
    });
    return told;
  };
  return { clock, givenUp, asked, ending, waitFor };
}

describe("a node that ends", () => {
  test("waits for a database as long as that one answers, and for all of it no longer than it may take", async () => {
    const { clock, givenUp, ending, waitFor } = createWorld(fine);
    ending.begin();
    const early = waitFor();
    await clock.advance(20_000);
    const late = waitFor({ database: 0 });
    await clock.advance(24_990);
    expect([early.code, late.code]).toEqual([null, null]);
    await clock.advance(20);
    expect([early, late]).toEqual(Array(2).fill({ code: "DEADLINE", at: withinMs }));
    expect(givenUp).toEqual([]);
  });

  test.each([
    ["answers nothing", never],
    ["cannot be reached", refused],
  ])("gives a database up that %s for two seconds, and waits for another one", async (_, ping) => {
    const { clock, givenUp, ending, waitFor } = createWorld(fine, ping);
    ending.begin();
    const [whole, other, here] = [waitFor(), waitFor({ database: 1 }), waitFor({ database: 0 })];
    await clock.advance(1_400);
    expect([whole.code, other.code, here.code]).toEqual([null, null, null]);
    await clock.advance(1_000);
    expect([whole.code, other.code, here.code]).toEqual(["STORE", "STORE", null]);
    expect(givenUp).toEqual([1]);
    const after = waitFor({ database: 1 });
    await clock.advance(0);
    expect(after.code).toBe("STORE");
  });

  test("gives a database up at once that is another than it was", async () => {
    const other = () => Promise.reject(new StarlingError("FENCED", "postgresql is another than it was"));
    const { clock, givenUp, asked, ending, waitFor } = createWorld(other);
    ending.begin();
    const told = waitFor();
    await clock.advance(10);
    expect(told).toMatchObject({ code: "FENCED" });
    await clock.advance(10_000);
    expect([givenUp, asked]).toEqual([[0], [1]]);
  });

  test("waits for a database that is back in time, however long it was away before", async () => {
    let isThere = false;
    const { clock, givenUp, ending, waitFor } = createWorld(() => (isThere ? fine() : refused()));
    await clock.advance(60_000);
    ending.begin();
    const told = waitFor();
    await clock.advance(1_200);
    isThere = true;
    await clock.advance(10_000);
    isThere = false;
    await clock.advance(1_200);
    isThere = true;
    await clock.advance(10_000);
    expect([told.code, givenUp]).toEqual([null, []]);
  });

  test("asks only from its beginning until it is closed, one question at a time", async () => {
    const { clock, asked, ending } = createWorld(fine, never);
    await clock.advance(10_000);
    expect(asked).toEqual([0, 0]);
    ending.begin();
    ending.begin();
    await clock.advance(1_100);
    expect(asked).toEqual([3, 1]);
    ending.close();
    expect(clock.timers).toBe(0);
  });

  test("gives what has a time of its own no more than that, nor more than is left", async () => {
    const { clock, ending, waitFor } = createWorld(fine);
    ending.begin();
    const short = waitFor({ withinMs: 1_000 });
    await clock.advance(44_500);
    const last = waitFor({ withinMs: 1_000 });
    await clock.advance(1_000);
    expect([short, last]).toEqual([
      { code: "DEADLINE", at: 1_000 },
      { code: "DEADLINE", at: withinMs },
    ]);
  });
});
